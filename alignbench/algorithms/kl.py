"""The KL penalty: where it stands, which estimator, and a coefficient that is fixed or steered to a target."""

from dataclasses import dataclass
from typing import Literal

import torch

from alignbench.core.batches import Experience, Forward, PerToken, Scored
from alignbench.core.errors import UserError
from alignbench.core.knobs import Count, NonNegative, Positive
from alignbench.equations.divergences import Estimator, estimate, with_exact_gradient


@dataclass(frozen=True, kw_only=True)
class FixedKL:
    """The same coefficient from the first step to the last."""

    coef: NonNegative = 0.02
    """The coefficient beta at step 0."""
    placement: Literal["reward", "loss"] = "loss"
    """Where the penalty stands: added to each token's loss, or subtracted from its reward."""
    estimator: Estimator = "k3"
    """Which estimator of KL(pi || ref) from sampled tokens."""
    exact_gradient: bool = True
    """In the loss: descend the true KL(pi || ref), whatever the estimator's own gradient is."""

    def __post_init__(self) -> None:
        if self.placement == "loss" and self.estimator == "k1" and not self.exact_gradient:
            raise UserError("estimator=k1 in the loss has no gradient in expectation: use k2 or k3, "
                            "exact_gradient=true, or placement=reward")

    def in_reward(self, batch: Scored) -> PerToken:
        """What to subtract from each token's reward, before the coefficient; 0 when it stands in the loss, [n, t]."""
        if self.placement == "loss":
            return torch.zeros_like(batch.old_logprobs)
        return torch.where(batch.mask, estimate(self.estimator, batch.old_logprobs, batch.ref_logprobs), 0.0)

    def in_loss(self, now: Forward, batch: Experience) -> PerToken:
        """What to add to each token's loss, before the coefficient; 0 when it stands in the reward, [n, t]."""
        if self.placement == "reward":
            return torch.zeros_like(now.logprobs)
        value = estimate(self.estimator, now.logprobs, batch.ref_logprobs)
        if not self.exact_gradient:
            return value
        return with_exact_gradient(value, now.logprobs, batch.ref_logprobs, batch.old_logprobs)

    def next(self, coef: float, kl_per_sequence: float, kl_per_token: float, episodes: int) -> float:
        """The coefficient, whatever was measured."""
        return coef


@dataclass(frozen=True, kw_only=True)
class AdaptiveKL(FixedKL):
    """Raises the coefficient while the measured KL is above the target and lowers it while below.

        e_t = clip(KL_t / target - 1, -clip, clip)        beta_{t+1} = beta_t (1 + e_t episodes / horizon)

    Ziegler et al. 2019, section 2.2, https://arxiv.org/abs/1909.08593. There KL_t is the mean over sequences, clip is
    0.2, and the gain 0.1 is per update; here the gain is episodes / horizon, as in the code OpenAI published with it.
    """

    coef: Positive = 0.2
    """The coefficient beta at step 0."""
    target: Positive = 6.0
    """The KL to steer to, in nats, in the unit below."""
    unit: Literal["per_sequence", "per_token"] = "per_sequence"
    """Whether the target is nats for a whole response or nats for each token."""
    horizon: Count = 10_000
    """Episodes over which a relative error of 1 would double the coefficient."""
    clip: Positive = 0.2
    """The largest relative error that counts."""

    def next(self, coef: float, kl_per_sequence: float, kl_per_token: float, episodes: int) -> float:
        """The coefficient after a step that drew `episodes` rollouts with this KL to the reference, in nats."""
        measured = kl_per_sequence if self.unit == "per_sequence" else kl_per_token
        error = min(max(measured / self.target - 1, -self.clip), self.clip)
        return coef * (1 + error * episodes / self.horizon)
