"""Invariants that every run checks while it trains, and the messages when one does not hold."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import Parameter

from alignbench.core.batches import Scored
from alignbench.core.errors import InvariantBroken
from alignbench.core.field_types import Count, Fraction, Positive

Level = Literal["error", "warn", "off"]
STRICT = 1e-3


@dataclass(frozen=True, kw_only=True)
class Invariants:
    """The level of each check: stop the run (error), log a warning (warn) or skip the check (off)."""

    first_ratio: Level = "error"
    """The first forward pass of the update must give the log-probabilities of sampling and scoring."""
    ratio_tolerance: Positive | None = None
    """Maximum |log ratio| of that pass; null is 0.001 in float32 and 0.5 in other dtypes or 4 bits."""
    importance: Level = "error"
    """With rl.importance_cap, replaces first_ratio of the sampler: the effective sample size must be large enough."""
    least_effective_share: Fraction = 0.5
    """Minimum of (sum w)^2 / (n sum w^2) over the importance weights w of a step's n tokens; 1 if both agree."""
    reference_kl: Level = "error"
    """At step 0, policy and reference must agree."""
    kl_tolerance: Positive = 1e-6
    """Maximum |log pi - log ref| of a token at step 0; with hardware.compile at least ratio_tolerance."""
    trainable: Level = "error"
    """Policy and critic must each have a trainable parameter."""
    weights_moved: Level = "error"
    """The first update with a gradient must change the weights."""
    finite: Level = "error"
    """Losses, scores and gradient norms must be finite."""
    no_signal: Level = "warn"
    """Consecutive steps without a learning signal, because all scores of each group are equal."""
    no_signal_patience: Count = 5
    """Number of such steps that triggers the check."""
    drift: Level = "warn"
    """The KL to the reference must stay below most_kl."""
    most_kl: Positive | None = None
    """Maximum KL to the reference, in nats per response; null sets no limit."""

    @property
    def is_strict(self) -> bool:
        """Whether sampler and update must agree within the tolerance of float32 arithmetic."""
        return self.first_ratio == "error" and (self.ratio_tolerance is None or self.ratio_tolerance <= STRICT)

    def check_trainable(self, groups: Iterable[Sequence[Parameter]]) -> list[str]:
        """Check that each parameter group is not empty, so that a trainable critic does not hide a frozen policy."""
        if all(groups):
            return []
        return report(
            self.trainable,
            "invariants.trainable",
            "no parameter is trainable: the adapter is frozen or all weights are. Set model.lora or unfreeze the model",
        )

    def check_reference(self, scored: Scored, step: int) -> list[str]:
        """Check that policy and reference agree on every token before the first update."""
        if step > 0:
            return []
        gap = (scored.old_logprobs - scored.ref_logprobs).abs().max().item()
        if gap <= self.kl_tolerance:
            return []
        return report(
            self.reference_kl,
            "invariants.reference_kl",
            f"at step 0 policy and reference differ by {gap:.3g} nats on a token (allowed "
            f"{self.kl_tolerance:g}): the reference is not the model this run started from",
        )

    def check_first_pass(self, gap: float, what: str) -> list[str]:
        """Check `gap`, the maximum |log ratio| before any weight has changed; `what` names the two passes."""
        allowed = STRICT if self.ratio_tolerance is None else self.ratio_tolerance
        if gap <= allowed:
            return []
        return report(
            self.first_ratio,
            "invariants.first_ratio",
            f"{what} differ by {gap:.3g} nats before any weight has changed (allowed {allowed:g}): "
            "dropout, temperature, padding or precision is not the same in both. Where precision is low, "
            "raise invariants.ratio_tolerance",
        )

    def check_importance(self, share: float) -> list[str]:
        """Check `share`, the effective sample size as a share of the sampled tokens, from 0 to 1."""
        if share >= self.least_effective_share:
            return []
        return report(
            self.importance,
            "invariants.importance",
            f"the effective sample size of the importance weights is {share:.1%} of the sampled tokens (at least "
            f"{self.least_effective_share:.0%} required): the sampler uses other weights, another temperature, or a "
            "logits filter that is too narrow (rl.logits_filter)",
        )

    def check_finite(self, name: str, value: float) -> list[str]:
        """Check a value before the optimizer step; with finite=warn that step is skipped, so NaN reaches no weight."""
        if math.isfinite(value):
            return []
        return report(
            self.finite,
            "invariants.finite",
            f"{name} is {value}: lower the learning rate, inspect "
            "the rewards, or use a wider dtype; it has changed no weight",
        )

    def check_moved(self, moved: bool, grad_norm: float, step: int) -> list[str]:
        """Check that the first update changed the weights, unless its gradient norm was 0."""
        if step > 0 or moved or grad_norm == 0:
            return []
        return report(
            self.weights_moved,
            "invariants.weights_moved",
            f"the gradient norm was {grad_norm:.3g} but no weight changed: the learning rate is too small "
            "for the dtype of the weights. Raise the learning rate or train in float32",
        )

    def check_signal(self, steps_without_signal: int) -> list[str]:
        """Check the number of consecutive steps without signal, at each multiple of the patience."""
        if steps_without_signal == 0 or steps_without_signal % self.no_signal_patience:
            return []
        return report(
            self.no_signal,
            "invariants.no_signal",
            f"in {steps_without_signal} consecutive steps all answers of each prompt had the same reward: there is no "
            "learning signal. Check the reward on a few answers (see the sample tables of this run)",
        )

    def check_drift(self, kl: float, before: float) -> list[str]:
        """Check the KL to the reference, in nats per response, at each step in which it rises above the maximum."""
        if self.most_kl is None or kl <= self.most_kl or before > self.most_kl:
            return []
        return report(
            self.drift,
            "invariants.drift",
            f"the KL of the policy to its reference is {kl:.3g} nats per response, above invariants.most_kl="
            f"{self.most_kl:g}: raise algo.kl.coef or lower the learning rate",
        )


def report(level: Level, key: str, message: str) -> list[str]:
    """Raise InvariantBroken, return the message as a warning, or ignore it, by `level`."""
    if level == "error":
        raise InvariantBroken(f"{message}. ({key}=warn continues with a warning)")
    return [f"{message}. ({key})"] if level == "warn" else []


def weights_checksum(parameters: Iterable[tuple[str, Parameter]]) -> torch.Tensor:
    """Two sums for each parameter, [parameters, 2], float64: they change when the weights do."""
    with torch.no_grad():
        sums = [torch.stack((p.double().sum(), p.double().square().sum())) for _, p in parameters]
        return torch.stack([s.cpu() for s in sums]) if sums else torch.zeros(0, 2)
