"""The supervised training loop of SFT and reward models; yields a report after each step, as `rl_loop` does."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from time import perf_counter
from typing import Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from alignbench.core.batches import Forward, Pairs, PerToken, Sequences
from alignbench.core.protocols import Learner, Policy
from alignbench.engine.checks import Invariants, weights_checksum
from alignbench.engine.optimizer import Optimizer
from alignbench.engine.run_state import RunState, StepReport
from alignbench.engine.score import microbatches

Batch = TypeVar("Batch", Sequences, Pairs)
Input = TypeVar("Input", Sequences, Pairs, contravariant=True)


@runtime_checkable
class Objective(Protocol[Input]):
    """The training objective: the mean of a loss over the tokens, or preference pairs, of a batch."""

    @property
    def name(self) -> str:
        """The stage, which is also the prefix of its metric names."""
        ...

    def count(self, batch: Input) -> int:
        """Number of tokens, or pairs, that the mean is over."""
        ...

    def sums(self, part: Input) -> Mapping[str, Tensor]:
        """Sums over a microbatch: of the `loss`, with gradient, and of other quantities that are logged as means."""
        ...


@dataclass(frozen=True, kw_only=True)
class SupervisedLoop(Generic[Batch]):
    """A model, an objective, an optimizer and the batch of each step."""

    model: Learner
    objective: Objective[Batch]
    optimizer: Optimizer
    batch_at: Callable[[int], Batch]
    """The batch of a step, as a function of the step number alone."""
    microbatch_size: int
    invariants: Invariants
    tokens_per_microbatch: int | None = None
    """Tokens per microbatch, instead of rows; None counts rows."""
    notes: tuple[str, ...] = ()
    """Warnings about the training data, reported with the first step."""

    def run(self, state: RunState) -> Iterator[StepReport]:
        """Endless steps, starting after `state`. Raises InvariantBroken when a check fails."""
        pending = [*self.notes, *self.invariants.check_trainable(self.optimizer.groups)]
        while True:
            start = perf_counter()
            batch = self.batch_at(state.step)
            before = weights_checksum(self.model.trainable()) if state.step == 0 else None
            means = self._accumulate(batch)
            norm = self.optimizer.clip()
            warnings, pending = pending + self.invariants.check_finite("the loss", means["loss"]), []
            warnings += self.invariants.check_finite("grad norm", norm)
            if isfinite(means["loss"] + norm):
                rate = self.optimizer.step(state.step)
            else:
                rate = 0.0
                self.optimizer.clear()
            if before is not None:
                moved = not torch.equal(before, weights_checksum(self.model.trainable()))
                warnings += self.invariants.check_moved(moved, norm, state.step)
            state = state.after(
                prompts_seen=state.prompts_seen + len(batch),
                tokens_written=state.tokens_written + int(batch.mask.sum()),
                optimizer_steps=state.optimizer_steps + 1,
                seconds=state.seconds + perf_counter() - start,
                flops=state.flops + 3 * self.model.flops_per_token * float(batch.lengths().sum()),
            )
            measured = {**means, "learning_rate": rate, "grad_norm": norm, "tokens": float(state.tokens_written)}
            metrics = {f"{self.objective.name}/{name}": value for name, value in measured.items()}
            yield StepReport(state=state, metrics=metrics, warnings=tuple(warnings))

    def _accumulate(self, batch: Batch) -> dict[str, float]:
        """Accumulate the gradient of one step, each token or pair with equal weight; returns the means."""
        count, totals = max(self.objective.count(batch), 1), dict[str, Tensor]()
        for rows in microbatches(batch, self.microbatch_size, tokens=self.tokens_per_microbatch):
            shares = {name: total / count for name, total in self.objective.sums(batch[rows]).items()}
            if shares["loss"].requires_grad:  # False for a frozen model with invariants.trainable=warn.
                shares["loss"].backward()
            for name, share in shares.items():
                totals[name] = totals.get(name, torch.zeros_like(share)) + share.detach()
        return {name: float(total) for name, total in totals.items()}


@dataclass(frozen=True)
class SFTObjective:
    """Supervised fine-tuning: -mean log pi(token) over the response tokens of a batch."""

    policy: Policy
    name: str = "sft"

    def count(self, batch: Sequences) -> int:
        """Number of response tokens."""
        return int(batch.mask.sum())

    def sums(self, part: Sequences) -> Mapping[str, Tensor]:
        """The negative log-likelihood of the response tokens."""
        return {"loss": negative_log_likelihood(self.policy(part), part).sum()}


def negative_log_likelihood(now: Forward, batch: Sequences) -> PerToken:
    """-log pi of each response token, [n, t], 0 outside the mask."""
    return torch.where(batch.mask, -now.logprobs, 0.0)
