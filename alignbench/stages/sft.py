"""Demonstrations -> Artifact: learn to answer by imitation, once for all the runs that share it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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
from alignbench.stages.failure_dump import given, watched

VERSION = 1
"""Raised when this phase computes something else from the same settings, so that old artifacts are not reused."""


@dataclass(frozen=True, kw_only=True)
class SFT:
    """Supervised fine-tuning on prompt and completion; only the completion is learned."""

    enabled: bool = True
    """Off starts reinforcement learning from the model as it is."""
    seed: Size = 42
    """Its own seed, so that all runs of a study share one start."""
    steps: Count = 400
    """Optimizer steps."""
    batch_size: Count = 64
    """Demonstrations in a step."""
    format: Literal["response", "genrm"] = "response"
    """What is imitated: the answers, or verdicts on them such as "Score: 8.0/10. ..."; those need scored answers."""
    max_tokens: Count | None = None
    """The longest demonstration, prompt and completion; null is the model's context."""
    too_long: Literal["error", "drop"] = "error"
    """Whether a longer one ends the run, or is left out and counted."""
    optimizer: AdamW = field(default_factory=AdamW)
    """How weights are changed."""

    def examples(self, rows: Sequence[Row], text: Text) -> "Demonstrations":
        """The rows as tokens. Raises UserError when none is left, or for one that is too long."""
        return Demonstrations(rows, text, min(self.max_tokens or text.context, text.context), self.too_long)

    def run(
        self,
        policy: CausalPolicy,
        rows: Sequence[Row],
        microbatch_size: int,
        invariants: Invariants,
        tokens_per_microbatch: int | None = None,
    ) -> Iterator[StepReport]:
        """Train the policy; one report for each step."""
        examples = self.examples(rows, policy.text)
        weights = [parameter for _, parameter in policy.policy_parameters()]
        learning = SupervisedLoop(
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
            reports = islice(learning.run(RunState()), self.steps)
            yield from watched(reports, 0, lambda step: given(learning.batch_at(step), policy.text))


class Demonstrations:
    """Prompts and completions, tokenised once, in an order addressed by seed and step."""

    def __init__(self, rows: Sequence[Row], text: Text, limit: int, too_long: Literal["error", "drop"]) -> None:
        if not rows:
            raise UserError("there are no demonstrations to imitate: choose data that has some, or sft.enabled=false")
        self.pad = text.pad
        self.tokens = []
        for row in rows:
            prompt, completion = text.encode_prompt(row["prompt"]), text.encode_completion(row["completion"])
            if len(prompt) + len(completion) <= limit:
                self.tokens.append((prompt, completion))
            elif too_long == "error":
                raise UserError(
                    f"demonstration {row['id']} has {len(prompt)} + {len(completion)} tokens, more than {limit}, the "
                    "smaller of sft.max_tokens and the model's context: leave such rows out with sft.too_long=drop, or "
                    "raise the limit"
                )
        dropped = len(rows) - len(self.tokens)
        told = f"{dropped} of {len(rows)} demonstrations have more than {limit} tokens: left out"
        self.notes = (told,) if dropped else ()
        if not self.tokens:
            raise UserError(
                f"each of the {len(rows)} demonstrations has more than {limit} tokens: raise "
                "sft.max_tokens, or take a model with a longer context"
            )

    def batch(self, seed: int, step: int, size: int) -> Sequences:
        """The demonstrations of a step: epochs without repetition, reshuffled each time."""
        return self.take(self._rows(seed, step, size))

    def tokens_in(self, seed: int, steps: int, size: int) -> int:
        """How many response tokens that many steps learn."""
        return sum(len(self.tokens[i][1]) for step in range(steps) for i in self._rows(seed, step, size))

    def _rows(self, seed: int, step: int, size: int) -> list[int]:
        return in_epochs(len(self.tokens), step, size, seed, "demonstrations")

    def take(self, rows: Sequence[int]) -> Sequences:
        """The demonstrations of these numbers as one batch."""
        return sequences([self.tokens[i][0] for i in rows], [self.tokens[i][1] for i in rows], self.pad)
