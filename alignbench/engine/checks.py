"""What must hold in every live run, and what to say when it does not."""

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
    """Each check can stop the run (error), be reported (warn) or be skipped (off)."""

    first_ratio: Level = "error"
    """The update's first pass must give the log-probabilities that the rollouts were scored and sampled with."""
    ratio_tolerance: Positive | None = None
    """The largest |log ratio| of that pass; null is 0.001 in float32 and 0.5 in other dtypes or 4 bits."""
    importance: Level = "error"
    """With rl.importance_cap, in place of that: the sampler must be near enough to the policy to tell of it."""
    least_effective_share: Fraction = 0.5
    """The least (sum w)^2 / (n sum w^2) of the importance weights w of a step's n tokens; 1 is of equal samplers."""
    reference_kl: Level = "error"
    """At step 0 the policy must be its own reference."""
    kl_tolerance: Positive = 1e-6
    """The largest |log pi - log ref| of a token at step 0; with hardware.compile at least ratio_tolerance."""
    trainable: Level = "error"
    """Something must be trainable, in the policy as in the critic."""
    weights_moved: Level = "error"
    """The first update with a gradient must change the weights."""
    finite: Level = "error"
    """Losses, scores and gradient norms must be numbers."""
    no_signal: Level = "warn"
    """Steps in a row in which every group's scores are all equal, so that nothing can be learned."""
    no_signal_patience: Count = 5
    """How many such steps make an alarm."""
    drift: Level = "warn"
    """The policy must stay near its reference."""
    most_kl: Positive | None = None
    """The most KL to the reference, in nats a response; null knows no limit."""

    @property
    def is_strict(self) -> bool:
        """Whether sampler and update are held to the tolerance of exact arithmetic."""
        return self.first_ratio == "error" and (self.ratio_tolerance is None or self.ratio_tolerance <= STRICT)

    def check_trainable(self, groups: Iterable[Sequence[Parameter]]) -> list[str]:
        """Each group of the optimizer must have a parameter: a critic that learns must not hide a frozen policy."""
        if all(groups):
            return []
        return report(
            self.trainable,
            "invariants.trainable",
            "no parameter is trainable: the adapter is frozen or all weights are. Set model.lora or unfreeze the model",
        )

    def check_reference(self, scored: Scored, step: int) -> list[str]:
        """Before the first update, policy and reference must agree on every token."""
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
        """`gap`: the largest |log ratio| before any weight moved."""
        allowed = STRICT if self.ratio_tolerance is None else self.ratio_tolerance
        if gap <= allowed:
            return []
        return report(
            self.first_ratio,
            "invariants.first_ratio",
            f"{what} differ by {gap:.3g} nats before any weight moved (allowed {allowed:g}): "
            "dropout, temperature, padding or precision is not the same in both. Where precision is low, "
            "raise invariants.ratio_tolerance",
        )

    def check_importance(self, share: float) -> list[str]:
        """`share`: how much of what the policy's own tokens would tell the sampler's do, from 0 to 1."""
        if share >= self.least_effective_share:
            return []
        return report(
            self.importance,
            "invariants.importance",
            f"the sampler's tokens tell as much of the policy as {share:.1%} of them would if they were its "
            f"own (least allowed {self.least_effective_share:.0%}): it samples with other weights, at "
            "another temperature, or from too few tokens (rl.logits_filter)",
        )

    def check_finite(self, name: str, value: float) -> list[str]:
        """Called before the optimizer steps; where this only warns, that step is skipped: NaN reaches no weight."""
        if math.isfinite(value):
            return []
        return report(
            self.finite,
            "invariants.finite",
            f"{name} is {value}: lower the learning rate, look at "
            "the rewards, or use a wider dtype; no weight was changed by it",
        )

    def check_moved(self, moved: bool, grad_norm: float, step: int) -> list[str]:
        """Whether the first update changed any weight, given the norm of its gradient."""
        if step > 0 or moved or grad_norm == 0:
            return []
        return report(
            self.weights_moved,
            "invariants.weights_moved",
            f"the gradient norm was {grad_norm:.3g} but no weight changed: the learning rate is too small "
            "for the dtype of the weights. Raise the learning rate or train in float32",
        )

    def check_signal(self, steps_without_signal: int) -> list[str]:
        """An alarm each time the count of steps without signal reaches a multiple of the patience."""
        if steps_without_signal == 0 or steps_without_signal % self.no_signal_patience:
            return []
        return report(
            self.no_signal,
            "invariants.no_signal",
            f"{steps_without_signal} steps in a row gave all answers of each prompt the same reward: nothing "
            "can be learned from them. Check the reward on a few samples (see the samples file of this run)",
        )

    def check_drift(self, kl: float, before: float) -> list[str]:
        """An alarm each time the KL to the reference, in nats a response, comes to stand above what is allowed."""
        if self.most_kl is None or kl <= self.most_kl or before > self.most_kl:
            return []
        return report(
            self.drift,
            "invariants.drift",
            f"the policy is {kl:.3g} nats a response from its reference, more than invariants.most_kl="
            f"{self.most_kl:g}: raise algo.kl.coef or lower the learning rate",
        )


def report(level: Level, key: str, message: str) -> list[str]:
    """Raise, return the message as a warning, or stay silent."""
    if level == "error":
        raise InvariantBroken(f"{message}. ({key}=warn goes on with a warning)")
    return [f"{message}. ({key})"] if level == "warn" else []


def weights_checksum(parameters: Iterable[tuple[str, Parameter]]) -> torch.Tensor:
    """Numbers that change when the weights do: two sums for each parameter."""
    with torch.no_grad():
        sums = [torch.stack((p.double().sum(), p.double().square().sum())) for _, p in parameters]
        return torch.stack([s.cpu() for s in sums]) if sums else torch.zeros(0, 2)
