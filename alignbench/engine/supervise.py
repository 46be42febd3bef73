"""The loop of learning from given answers; yields after each step, like its sibling `reinforce`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isfinite
from time import perf_counter

import torch

from alignbench.core.batches import Forward, PerToken, Sequences
from alignbench.core.contracts import Policy
from alignbench.engine.invariants import Invariants, fingerprint
from alignbench.engine.optimize import Optimizer
from alignbench.engine.score import microbatches
from alignbench.engine.state import RunState, StepReport

BatchAt = Callable[[int], Sequences]
"""The batch of a step: a function of the step's number alone, so that a run can go on anywhere."""


@dataclass(frozen=True, kw_only=True)
class Imitation:
    """Supervised fine-tuning: -mean log pi(token) over the response tokens of a batch."""

    policy: Policy
    optimizer: Optimizer
    batch_at: BatchAt
    microbatch_size: int
    invariants: Invariants

    def run(self, state: RunState) -> Iterator[StepReport]:
        """Steps without end, starting after `state`."""
        pending = self.invariants.check_trainable(self.optimizer.groups)
        while True:
            start = perf_counter()
            batch = self.batch_at(state.step)
            before = fingerprint(self.policy.trainable()) if state.step == 0 else None
            loss = self._accumulate(batch)
            norm = self.optimizer.clip()
            warnings, pending = pending + self.invariants.check_finite("the loss", loss), []
            warnings += self.invariants.check_finite("grad norm", norm)
            if isfinite(loss + norm):
                rate = self.optimizer.step(state.step)
            else:
                rate = 0.0
                self.optimizer.clear()
            if before is not None:
                moved = not torch.equal(before, fingerprint(self.policy.trainable()))
                warnings += self.invariants.check_moved(moved, norm, state.step)
            tokens = int(batch.mask.sum())
            state = state.after(
                prompts_seen=state.prompts_seen + len(batch), tokens_written=state.tokens_written + tokens,
                optimizer_steps=state.optimizer_steps + 1, seconds=state.seconds + perf_counter() - start,
                flops=state.flops + 3 * self.policy.flops_per_token * float(batch.lengths().sum()),
            )
            metrics = {"sft/loss": loss, "sft/learning_rate": rate, "sft/grad_norm": norm,
                       "sft/tokens": float(state.tokens_written)}
            yield StepReport(state=state, metrics=metrics, warnings=tuple(warnings))

    def _accumulate(self, batch: Sequences) -> float:
        """Add up the gradient of one step, every token of the whole batch counting the same; returns the loss."""
        total = torch.zeros((), device=batch.mask.device)
        count = batch.mask.sum().clamp(min=1)
        for rows in microbatches(batch, self.microbatch_size):
            part = batch[rows]
            loss = negative_log_likelihood(self.policy(part), part).sum() / count
            if loss.requires_grad:  # A frozen policy was reported, and may be gone on with.
                loss.backward()
            total = total + loss.detach()
        return float(total)


def negative_log_likelihood(now: Forward, batch: Sequences) -> PerToken:
    """-log pi of each response token, [n, t], 0 outside the mask."""
    return torch.where(batch.mask, -now.logprobs, 0.0)
