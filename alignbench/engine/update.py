"""The policy update: epochs, minibatches and microbatches, with one loss denominator per optimizer step."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isfinite

import torch
from torch import Tensor

from alignbench.core.batches import Experience, Scored
from alignbench.core.protocols import Algorithm, Policy
from alignbench.core.seeds import derive
from alignbench.engine.checks import Invariants, weights_checksum
from alignbench.engine.optimizer import Optimizer
from alignbench.engine.score import microbatches, sibling_groups
from alignbench.engine.token_metrics import Metrics, TokenMeans, token_metrics

SPREAD = ("ratio", "kl", "advantages")


@dataclass(frozen=True, kw_only=True)
class Update:
    """Trains the policy on a batch of experience."""

    policy: Policy
    optimizer: Optimizer
    algorithm: Algorithm
    epochs: int
    minibatches: int
    microbatch_size: int
    invariants: Invariants
    tokens_per_microbatch: int | None = None
    """Tokens per microbatch, instead of rows; None counts rows."""
    importance_cap: float | None = None
    """Upper bound on the importance weight pi_old / pi_sampler of a token; None does not weight."""

    def __call__(
        self, experience: Experience, *, step: int, optimizer_steps: int, seed: int, learning_rate_scale: float = 1.0
    ) -> "Updated":
        """Run all optimizer steps on the batch; `optimizer_steps` were made before it."""
        seen, norms, rates, losses, first_gap, warnings = TokenMeans(), [0.0], [0.0], [0.0], 0.0, list[str]()
        skipped = 0
        before = weights_checksum(self.policy.trainable()) if step == 0 else None
        for rows in self._minibatches(experience, seed, step):
            batch = self._with_weights(experience[rows])
            if not batch.has_weights():
                continue  # Nothing to learn from: no optimizer step, so that momentum does not move the weights either.
            loss, kl_to_old, gap = self._accumulate(batch, seen)
            norm = self.optimizer.clip()
            warnings += self.invariants.check_finite("the loss", loss) + self.invariants.check_finite("grad norm", norm)
            if len(losses) == 1:
                first_gap = gap
                warnings += self.invariants.check_first_pass(gap, "the update's first pass and the pass before it")
            if not isfinite(loss + norm):
                skipped += 1
                self.optimizer.clear()
                continue
            if self.algorithm.target_kl is not None and kl_to_old > self.algorithm.target_kl:
                self.optimizer.clear()
                break
            rates.append(self.optimizer.step(optimizer_steps + len(losses) - 1, learning_rate_scale))
            losses.append(loss)
            norms.append(norm)
        if before is not None:
            moved = not torch.equal(before, weights_checksum(self.policy.trainable()))
            warnings += self.invariants.check_moved(moved, max(norms), step)
        done = len(losses) - 1
        metrics = self._metrics(seen) | {
            "train/total_loss": sum(losses) / max(done, 1),
            "train/grad_norm": sum(norms) / max(done, 1),
            "train/learning_rate": rates[-1],
            "train/first_ratio_gap": first_gap,
            "train/epochs_done": done / self.minibatches,
            "train/skipped_updates": float(skipped),
        }
        return Updated(metrics=metrics, optimizer_steps=done, warnings=tuple(warnings))

    def _with_weights(self, minibatch: Experience) -> Experience:
        """The minibatch of one optimizer step with its token weights, importance weights included."""
        batch = self.algorithm.with_weights(minibatch)
        assert batch.weights is not None
        return replace(batch, weights=batch.weights * importance(batch, self.importance_cap))

    def _minibatches(self, experience: Experience, seed: int, step: int) -> Iterator[Tensor]:
        """Rows of each minibatch of each epoch: whole groups in an order derived from the seed."""
        names, group_index = torch.unique(experience.group, return_inverse=True)
        for epoch in range(self.epochs):
            order = torch.randperm(len(names), generator=derive(seed, "minibatches", step, epoch))
            for part in order.tensor_split(min(self.minibatches, len(names))):
                yield torch.isin(group_index.cpu(), part).nonzero()[:, 0]

    def _accumulate(self, batch: Experience, seen: TokenMeans) -> tuple[float, float, float]:
        """Accumulate the gradient of one optimizer step; returns loss, KL to pi_old, and largest |log ratio|."""
        total, local, gaps = torch.zeros((), device=batch.mask.device), TokenMeans(), [0.0]
        whole = self.algorithm.whole_groups
        groups = batch.group if whole else sibling_groups(self.policy, batch)
        for rows in microbatches(
            batch,
            self.microbatch_size,
            groups,
            split_groups=not whole,
            tokens=self.tokens_per_microbatch,
            shared_prompts=self.policy.shares_prompts,
        ):
            part = batch[rows]
            now = self.policy(part)
            output = self.algorithm.loss(now, part)
            if output.loss.requires_grad:  # False for a frozen policy with invariants.trainable=warn.
                output.loss.backward()
            shown = token_metrics(now, part)
            seen.add(part.mask, **shown, **output.tokens)
            local.add(part.mask, kl_to_old=shown["kl_to_old"])
            total = total + output.loss.detach()
            gaps.append(float((now.logprobs - part.old_logprobs).detach().abs().max()))
        return float(total), local.mean("kl_to_old"), max(gaps)

    @staticmethod
    def _metrics(seen: TokenMeans) -> Metrics:
        spread = {f"train/{name}_std": seen.std(name) for name in SPREAD if name in seen.sums}
        means = {f"train/{name}_mean" if name in SPREAD else f"train/{name}": seen.mean(name) for name in seen.sums}
        return means | spread


def importance(batch: Scored, cap: float | None) -> Tensor:
    """min(pi_old / pi_sampler, cap) of each token, [n, t]: corrects for a sampler that computes otherwise.

    Truncated importance sampling, Yao et al. 2025, https://fengyao.notion.site/off-policy-rl. There it weights the
    policy loss; here every term of the loss, since all are means over the sampled tokens.
    """
    if cap is None:
        return torch.ones_like(batch.old_logprobs)
    return (batch.old_logprobs - batch.logprobs).exp().clamp(max=cap)


@dataclass(frozen=True, kw_only=True)
class Updated:
    """The result of an update."""

    metrics: Metrics
    optimizer_steps: int
    warnings: tuple[str, ...]
