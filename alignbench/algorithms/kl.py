"""The KL penalty: its placement, its estimator, and controllers that adapt its coefficient to the measured KL."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import Literal

import torch

from alignbench.core.batches import Experience, Forward, PerToken, Scored
from alignbench.core.errors import UserError
from alignbench.core.field_types import AboveOne, BelowOne, Count, NonNegative, Positive
from alignbench.core.protocols import KLControlState, KLStats
from alignbench.equations.divergences import Estimator, estimate, with_exact_gradient

Unit = Literal["per_sequence", "per_token"]


@dataclass(frozen=True, kw_only=True)
class Penalty(ABC):
    """Placement and estimator of the penalty; subclasses control its coefficient."""

    placement: Literal["reward", "loss", "none"] = "loss"
    """Where the penalty is applied: added to each token's loss, subtracted from its reward, or nowhere."""
    estimator: Estimator = "k3"
    """Which estimator of KL(pi || ref) from sampled tokens."""
    exact_gradient: bool = True
    """In the loss: descend the true KL(pi || ref), whatever the estimator's own gradient is."""

    def __post_init__(self) -> None:
        if self.placement == "loss" and self.estimator == "k1" and not self.exact_gradient:
            raise UserError(
                "estimator=k1 in the loss has no gradient in expectation: use k2 or k3, "
                "exact_gradient=true, or placement=reward"
            )
        if self.placement == "none" and self.start.coef:
            raise UserError(
                f"with placement=none the coefficient {self.start.coef:g} has no effect: "
                "set it to 0, or use placement=loss or reward"
            )

    @property
    @abstractmethod
    def start(self) -> KLControlState:
        """The state at step 0."""

    @abstractmethod
    def next(self, state: KLControlState, stats: KLStats) -> KLControlState:
        """The state after a step that ran under `state` and measured `stats`."""

    def in_reward(self, batch: Scored) -> PerToken:
        """The penalty of each token's reward, without the coefficient; 0 for another placement, [n, t]."""
        if self.placement != "reward":
            return torch.zeros_like(batch.old_logprobs)
        return torch.where(batch.mask, estimate(self.estimator, batch.old_logprobs, batch.ref_logprobs), 0.0)

    def in_loss(self, now: Forward, batch: Experience) -> PerToken:
        """The penalty in each token's loss, without the coefficient; 0 for another placement, [n, t]."""
        if self.placement != "loss":
            return torch.zeros_like(now.logprobs)
        value = estimate(self.estimator, now.logprobs, batch.ref_logprobs)
        if not self.exact_gradient:
            return value
        return with_exact_gradient(value, now.logprobs, batch.ref_logprobs, batch.old_logprobs)


@dataclass(frozen=True, kw_only=True)
class FixedKL(Penalty):
    """A constant coefficient."""

    coef: NonNegative = 0.02
    """The coefficient beta."""

    @property
    def start(self) -> KLControlState:
        return KLControlState(coef=self.coef)

    def next(self, state: KLControlState, stats: KLStats) -> KLControlState:
        return state


@dataclass(frozen=True, kw_only=True)
class AdaptiveKL(Penalty):
    """Raises the coefficient while the measured KL is above the target and lowers it while below.

        e_t = clip(KL_t / target - 1, -clip, clip)        beta_{t+1} = beta_t (1 + e_t episodes / horizon)

    Ziegler et al. 2019, section 2.2, https://arxiv.org/abs/1909.08593. There KL_t is the mean over sequences, clip is
    0.2, and the gain 0.1 is per update; here the gain is episodes / horizon, as in the code OpenAI published with it.
    """

    coef: Positive = 0.2
    """The coefficient beta at step 0."""
    target: Positive = 6.0
    """Target KL, in nats, in the unit below."""
    unit: Unit = "per_sequence"
    """Whether the target is in nats per response or per token."""
    horizon: Count = 10_000
    """Number of rollouts over which a relative error of 1 doubles the coefficient."""
    clip: Positive = 0.2
    """Bound on the relative error."""

    @property
    def start(self) -> KLControlState:
        return KLControlState(coef=self.coef)

    def next(self, state: KLControlState, stats: KLStats) -> KLControlState:
        error = min(max(measured(stats, self.unit) / self.target - 1, -self.clip), self.clip)
        return replace(state, coef=state.coef * (1 + error * stats.episodes / self.horizon))


@dataclass(frozen=True, kw_only=True)
class BandKL(Penalty):
    """Changes the coefficient by a factor at each step whose KL is outside a band around the target.

        beta <- beta * factor  while KL > target * band        beta <- beta / factor  while KL < target / band

    Schulman et al. 2017, section 4, https://arxiv.org/abs/1707.06347. There the KL is that to the policy of the step
    before; here it is that to the reference, as with the other controllers.
    """

    coef: Positive = 0.2
    """The coefficient beta at step 0."""
    target: Positive = 6.0
    """Target KL, in nats, in the unit below."""
    unit: Unit = "per_sequence"
    """Whether the target is in nats per response or per token."""
    band: AboveOne = 1.5
    """Width of the band: the coefficient changes above target * band and below target / band."""
    factor: AboveOne = 2.0
    """What the coefficient is multiplied or divided by."""

    @property
    def start(self) -> KLControlState:
        return KLControlState(coef=self.coef)

    def next(self, state: KLControlState, stats: KLStats) -> KLControlState:
        kl = measured(stats, self.unit)
        if kl > self.target * self.band:
            return replace(state, coef=state.coef * self.factor)
        return replace(state, coef=state.coef / self.factor) if kl < self.target / self.band else state


@dataclass(frozen=True, kw_only=True)
class PhasedKL(Penalty):
    """A value for each phase of the run: the coefficient itself, or a maximum KL.

    action coef   beta = values[phase]
    action lr     rate <- rate * factor while KL > values[phase], back towards the schedule's while not
    action stop   the run ends at the first step with KL > values[phase]
    """

    values: tuple[NonNegative, ...] = (0.05, 0.02, 0.01)
    """One per phase: coefficients for action=coef, else the maximum KL, in nats, in the unit below."""
    boundaries: tuple[BelowOne, ...] = (0.333, 0.667)
    """Ends of the phases, as increasing fractions of the run; one fewer than `values`."""
    action: Literal["coef", "lr", "stop"] = "coef"
    """What the values act on."""
    unit: Unit = "per_token"
    """Whether the maximum KL is in nats per response or per token."""
    factor: BelowOne = 0.5
    """For action=lr: factor on the learning rate after a step above the value."""
    floor: BelowOne = 0.01
    """For action=lr: minimum fraction of the scheduled learning rate."""
    coef: NonNegative | None = None
    """Coefficient of the penalty for action=lr and stop; null for action=coef, whose values are the coefficients."""

    def __post_init__(self) -> None:
        if len(self.boundaries) != len(self.values) - 1 or list(self.boundaries) != sorted(set(self.boundaries)):
            raise UserError(
                f"boundaries={list(self.boundaries)} must be {len(self.values) - 1} increasing fractions of the "
                f"run, one fewer than values={list(self.values)}"
            )
        if (self.coef is None) != (self.action == "coef"):
            remedy = "set coef=null" if self.action == "coef" else "set the coefficient of the penalty, 0 for none"
            raise UserError(f"coef={self.coef} with action={self.action}: {remedy}")
        super().__post_init__()

    @property
    def start(self) -> KLControlState:
        return KLControlState(coef=self.values[0] if self.coef is None else self.coef)

    def next(self, state: KLControlState, stats: KLStats) -> KLControlState:
        value = self.values[bisect_right(self.boundaries, stats.progress)]
        if self.action == "coef":
            return replace(state, coef=value)
        above = measured(stats, self.unit) > value
        if self.action == "stop":
            return replace(state, stop=above)
        scale = state.learning_rate_scale * self.factor if above else state.learning_rate_scale / self.factor
        return replace(state, learning_rate_scale=min(max(scale, self.floor), 1.0))


def measured(stats: KLStats, unit: Unit) -> float:
    """The KL of a step, in nats per `unit`."""
    return stats.per_sequence if unit == "per_sequence" else stats.per_token
