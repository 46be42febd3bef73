"""The KL penalty: where it stands, which estimator, and a controller that steers by the KL that is measured."""

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
    """Where the KL stands; its subclasses say how strong it is."""

    placement: Literal["reward", "loss", "none"] = "loss"
    """Where the penalty stands: added to each token's loss, subtracted from its reward, or nowhere."""
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
                f"placement=none leaves the penalty out, so its coefficient {self.start.coef:g} would not "
                "be read: set it to 0, or use placement=loss or reward"
            )

    @property
    @abstractmethod
    def start(self) -> KLControlState:
        """The state at step 0."""

    @abstractmethod
    def next(self, state: KLControlState, stats: KLStats) -> KLControlState:
        """The state after a step that ran under `state` and measured `stats`."""

    def in_reward(self, batch: Scored) -> PerToken:
        """What to subtract from each token's reward, before the coefficient; 0 when it stands elsewhere, [n, t]."""
        if self.placement != "reward":
            return torch.zeros_like(batch.old_logprobs)
        return torch.where(batch.mask, estimate(self.estimator, batch.old_logprobs, batch.ref_logprobs), 0.0)

    def in_loss(self, now: Forward, batch: Experience) -> PerToken:
        """What to add to each token's loss, before the coefficient; 0 when it stands elsewhere, [n, t]."""
        if self.placement != "loss":
            return torch.zeros_like(now.logprobs)
        value = estimate(self.estimator, now.logprobs, batch.ref_logprobs)
        if not self.exact_gradient:
            return value
        return with_exact_gradient(value, now.logprobs, batch.ref_logprobs, batch.old_logprobs)


@dataclass(frozen=True, kw_only=True)
class FixedKL(Penalty):
    """The same coefficient from the first step to the last."""

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
    """The KL to steer to, in nats, in the unit below."""
    unit: Unit = "per_sequence"
    """Whether the target is nats for a whole response or nats for each token."""
    horizon: Count = 10_000
    """Episodes over which a relative error of 1 would double the coefficient."""
    clip: Positive = 0.2
    """The largest relative error that counts."""

    @property
    def start(self) -> KLControlState:
        return KLControlState(coef=self.coef)

    def next(self, state: KLControlState, stats: KLStats) -> KLControlState:
        error = min(max(measured(stats, self.unit) / self.target - 1, -self.clip), self.clip)
        return replace(state, coef=state.coef * (1 + error * stats.episodes / self.horizon))


@dataclass(frozen=True, kw_only=True)
class BandKL(Penalty):
    """Changes the coefficient by one factor at each step whose KL stands outside a band around the target.

        beta <- beta * factor  while KL > target * band        beta <- beta / factor  while KL < target / band

    Schulman et al. 2017, section 4, https://arxiv.org/abs/1707.06347. There the KL is that to the policy of the step
    before; here it is that to the reference, as with the other controllers.
    """

    coef: Positive = 0.2
    """The coefficient beta at step 0."""
    target: Positive = 6.0
    """The KL to steer to, in nats, in the unit below."""
    unit: Unit = "per_sequence"
    """Whether the target is nats for a whole response or nats for each token."""
    band: AboveOne = 1.5
    """How many times the target, or which part of it, the KL may be before the coefficient changes."""
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
    """A value for each phase of the run, which is either the coefficient itself or the KL not to be exceeded.

    action coef   beta = values[phase]
    action lr     rate <- rate * factor while KL > values[phase], back towards the schedule's while not
    action stop   the run ends at the first step with KL > values[phase]
    """

    values: tuple[NonNegative, ...] = (0.05, 0.02, 0.01)
    """One for each phase: coefficients for action=coef, else the most KL allowed, in nats, in the unit below."""
    boundaries: tuple[BelowOne, ...] = (0.333, 0.667)
    """Where phases end, as shares of the run; one fewer than `values`, growing."""
    action: Literal["coef", "lr", "stop"] = "coef"
    """What the values act on."""
    unit: Unit = "per_token"
    """Whether the most KL allowed is nats for a whole response or nats for each token."""
    factor: BelowOne = 0.5
    """For action=lr: what the learning rate is multiplied by at a step above the value."""
    floor: BelowOne = 0.01
    """For action=lr: the least share of the scheduled learning rate."""
    coef: NonNegative | None = None
    """The coefficient of the penalty for action=lr and stop; null for action=coef, where the values are that."""

    def __post_init__(self) -> None:
        if len(self.boundaries) != len(self.values) - 1 or list(self.boundaries) != sorted(set(self.boundaries)):
            raise UserError(
                f"boundaries={list(self.boundaries)} must be {len(self.values) - 1} growing shares of the "
                f"run, one fewer than values={list(self.values)}"
            )
        if (self.coef is None) != (self.action == "coef"):
            remedy = "set coef=null" if self.action == "coef" else "say how strong the penalty is, coef=0 for none"
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
    """The KL of a step in that unit, in nats."""
    return stats.per_sequence if unit == "per_sequence" else stats.per_token
