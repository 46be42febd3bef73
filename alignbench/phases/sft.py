"""Demonstrations -> Artifact: learn to answer by imitation, once for all the runs that share it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from alignbench.core.batches import Row, Sequences, sequences
from alignbench.core.errors import UserError
from alignbench.core.knobs import Count, Size
from alignbench.core.seeds import derive
from alignbench.engine.invariants import Invariants
from alignbench.engine.optimize import AdamW, Optimizer
from alignbench.engine.state import RunState, StepReport
from alignbench.engine.supervise import Imitation, Supervised
from alignbench.models.policy import CausalPolicy
from alignbench.models.text import Text

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
    optimizer: AdamW = field(default_factory=AdamW)
    """How weights are changed."""

    def run(
        self, policy: CausalPolicy, rows: Sequence[Row], microbatch_size: int, invariants: Invariants
    ) -> Iterator[StepReport]:
        """Train the policy; one report for each step."""
        examples = Demonstrations(rows, policy.text)
        weights = [parameter for _, parameter in policy.policy_parameters()]
        learning = Supervised(
            model=policy, objective=Imitation(policy),
            batch_at=lambda step: examples.batch(self.seed, step, self.batch_size).to(policy.device),
            optimizer=Optimizer([(weights, self.optimizer.learning_rate)], self.optimizer, self.steps),
            microbatch_size=microbatch_size, invariants=invariants)
        with policy.training(), torch.random.fork_rng():
            torch.manual_seed(self.seed)
            for report in learning.run(RunState()):
                yield report
                if report.state.step >= self.steps:
                    return


class Demonstrations:
    """Prompts and completions, tokenised once, in an order addressed by seed and step."""

    def __init__(self, rows: Sequence[Row], text: Text) -> None:
        if not rows:
            raise UserError("there are no demonstrations to imitate: choose data that has some, or sft.enabled=false")
        self.pad = text.pad
        self.tokens = [(text.prompt(row["prompt"]), text.completion(row["completion"])) for row in rows]
        for row, (prompt, completion) in zip(rows, self.tokens, strict=True):
            if len(prompt) + len(completion) > text.context:
                raise UserError(
                    f"demonstration {row['id']} has {len(prompt)} + {len(completion)} tokens, more than the model's "
                    f"context of {text.context}: remove it or take a model with a longer context")

    def batch(self, seed: int, step: int, size: int) -> Sequences:
        """The demonstrations of a step: epochs without repetition, reshuffled each time."""
        positions = range(step * size, (step + 1) * size)
        return self.take([self._order(seed, p // len(self.tokens))[p % len(self.tokens)] for p in positions])

    def take(self, rows: Sequence[int]) -> Sequences:
        """The demonstrations of these numbers as one batch."""
        return sequences([self.tokens[i][0] for i in rows], [self.tokens[i][1] for i in rows], self.pad)

    def _order(self, seed: int, epoch: int) -> list[int]:
        return torch.randperm(len(self.tokens), generator=derive(seed, "demonstrations", epoch)).tolist()
