"""The supervised fine-tuning (SFT) stage: trains the model on demonstrations that all runs of a study share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch

from alignbench.core.batches import Row, Sequences, sequences
from alignbench.core.errors import UserError
from alignbench.core.field_types import Count, Size
from alignbench.core.seeds import in_epochs
from alignbench.engine.checks import Invariants
from alignbench.engine.optimizer import AdamW, Optimizer
from alignbench.engine.run_state import RunState, StepReport
from alignbench.engine.supervised_loop import SFTObjective, SupervisedLoop
from alignbench.models.policy import CausalPolicy
from alignbench.models.text import Text
from alignbench.stages.failure_dump import describe_batch, record_failures


@dataclass(frozen=True, kw_only=True)
class SFT:
    """Settings of SFT; the loss is over the tokens of the completion."""

    enabled: bool = True
    """False starts RL from the model without SFT."""
    seed: Size = 42
    """Seed of SFT, separate from the run's seed, so that all runs of a study share one SFT model."""
    steps: Count = 400
    """Optimizer steps."""
    batch_size: Count = 64
    """Demonstrations in each step."""
    format: Literal["response", "genrm"] = "response"
    """Target text: the answers, or generative reward model targets such as "Score: 8.0/10. ...", which need scores."""
    max_tokens: Count | None = None
    """Maximum length of prompt and completion together; null is the model's context."""
    too_long: Literal["error", "drop"] = "error"
    """A longer demonstration is an error, or is dropped and counted."""
    optimizer: AdamW = AdamW(learning_rate=4e-3, weight_decay=0.01, warmup_steps=30, schedule="cosine")
    """Optimizer of SFT."""

    def examples(self, rows: Sequence[Row], text: Text) -> "Demonstrations":
        """The tokenized rows. Raises UserError if there are none, or for one that is too long."""
        return Demonstrations(rows, text, min(self.max_tokens or text.context, text.context), self.too_long)

    def run(
        self,
        policy: CausalPolicy,
        rows: Sequence[Row],
        microbatch_size: int,
        invariants: Invariants,
        tokens_per_microbatch: int | None = None,
    ) -> Iterator[StepReport]:
        """Train the policy, yielding a report after each step. Raises UserError and InvariantBroken."""
        examples = self.examples(rows, policy.text)
        weights = [parameter for _, parameter in policy.policy_parameters()]
        loop = SupervisedLoop(
            model=policy,
            objective=SFTObjective(policy),
            batch_at=lambda step: examples.batch(self.seed, step, self.batch_size).to(policy.device),
            optimizer=Optimizer([(weights, self.optimizer.learning_rate)], self.optimizer, self.steps),
            microbatch_size=microbatch_size,
            tokens_per_microbatch=tokens_per_microbatch,
            invariants=invariants,
            notes=examples.notes,
        )
        with policy.training(), torch.random.fork_rng():
            torch.manual_seed(self.seed)
            reports = islice(loop.run(RunState()), self.steps)
            yield from record_failures(reports, 0, lambda step: describe_batch(loop.batch_at(step), policy.text))


class Demonstrations:
    """Tokenized prompts and completions, in an order that is a function of seed and step."""

    def __init__(self, rows: Sequence[Row], text: Text, limit: int, too_long: Literal["error", "drop"]) -> None:
        if not rows:
            raise UserError(
                "the dataset has no demonstrations for SFT: choose a dataset that has some, or set sft.enabled=false"
            )
        self.pad = text.pad
        self.tokens = []
        for row in rows:
            prompt, completion = text.encode_prompt(row["prompt"]), text.encode_completion(row["completion"])
            if len(prompt) + len(completion) <= limit:
                self.tokens.append((prompt, completion))
            elif too_long == "error":
                raise UserError(
                    f"demonstration {row['id']} has {len(prompt)} + {len(completion)} tokens, more than {limit}, the "
                    "smaller of sft.max_tokens and the model's context: drop such rows with sft.too_long=drop, or "
                    "raise the limit"
                )
        dropped = len(rows) - len(self.tokens)
        note = f"dropped {dropped} of {len(rows)} demonstrations that have more than {limit} tokens"
        self.notes = (note,) if dropped else ()
        if not self.tokens:
            raise UserError(
                f"each of the {len(rows)} demonstrations has more than {limit} tokens: raise "
                "sft.max_tokens, or choose a model with a longer context"
            )

    def batch(self, seed: int, step: int, size: int) -> Sequences:
        """The demonstrations of a step; each epoch is a new permutation."""
        return self.take(self._rows(seed, step, size))

    def tokens_in(self, seed: int, steps: int, size: int) -> int:
        """Number of completion tokens in that many steps."""
        return sum(len(self.tokens[i][1]) for step in range(steps) for i in self._rows(seed, step, size))

    def _rows(self, seed: int, step: int, size: int) -> list[int]:
        return in_epochs(len(self.tokens), step, size, seed, "demonstrations")

    def take(self, rows: Sequence[int]) -> Sequences:
        """The demonstrations with these indices as one batch."""
        return sequences([self.tokens[i][0] for i in rows], [self.tokens[i][1] for i in rows], self.pad)
