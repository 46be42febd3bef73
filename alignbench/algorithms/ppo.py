"""Proximal policy optimization with a learned critic; the KL penalty is in the reward.

    r_t = 1[t = last] score - beta log(pi_old / pi_ref)                    Ouyang 2022, eq. 2, arXiv 2203.02155
    A_t = GAE(r, V; gamma, lambda)                                         Schulman 2016, eq. 16, arXiv 1506.02438
    L   = E[-min(rho A, clip(rho, 1 - eps, 1 + eps) A)] + c_v L_value - c_e entropy
                                                                           Schulman 2017, eq. 7, 9, arXiv 1707.06347

Deviations from the papers: advantages are whitened over the tokens of the whole batch, the value loss is clipped, and
rho is computed from log-ratios within +-20. beta is the coefficient in force at the step (see `kl`).
"""

from dataclasses import dataclass, field

from alignbench.algorithms.kl import FixedKL, Penalty
from alignbench.algorithms.normalizer import EMA
from alignbench.core.batches import Experience, Forward, LossOutput, PerToken, Scored
from alignbench.core.field_types import AboveOne, BelowOne, Count, Fraction, NonNegative, Positive
from alignbench.core.protocols import Algorithm, Critic
from alignbench.equations.advantages import at_last_token, gae, whiten
from alignbench.equations.divergences import likelihood_ratio
from alignbench.equations.objectives import clipped, clipped_surrogate, clipped_value
from alignbench.equations.reductions import Reduction, check_fixed_length, token_weights


@dataclass(frozen=True, kw_only=True)
class PPO(Algorithm):
    """Actor and critic: the advantage of a token is how much the outcome exceeds the critic's prediction."""

    group_size: Count = 1
    """Rollouts sampled for each prompt."""
    clip_low: BelowOne = 0.2
    """Lower clip range: the ratio is clipped at 1 - clip_low."""
    clip_high: Positive = 0.2
    """Upper clip range: the ratio is clipped at 1 + clip_high."""
    dual_clip: AboveOne | None = None
    """Bound on the loss of tokens with negative advantage, as a multiple of it; null is off."""
    gamma: Fraction = 1.0
    """Discount of a later token's reward."""
    lam: Fraction = 0.95
    """Lambda of generalized advantage estimation."""
    whiten_advantages: bool = True
    """Zero mean and unit variance over the tokens of the batch."""
    value_coef: NonNegative = 0.5
    """Weight of the value loss."""
    value_clip: Positive | None = 0.2
    """How far a value may move from the old one before its loss is clipped; null is off."""
    entropy_coef: NonNegative = 0.0
    """Weight of the entropy bonus."""
    reduction: Reduction = "token_mean"
    """How the losses of tokens are averaged."""
    fixed_length: Count | None = None
    """Divisor for reduction fixed_length: the response limit."""
    target_kl: Positive | None = None
    """Skip the remaining minibatches of a step once the KL per token to pi_old exceeds this; null is off."""
    kl: Penalty = field(default_factory=lambda: FixedKL(placement="reward", estimator="k1"))
    """The KL penalty."""
    normalizer: EMA | None = None
    """Rescales the scores; null trains on the raw scores."""
    critic: Critic = field(default_factory=Critic)
    """The value function."""

    def __post_init__(self) -> None:
        check_fixed_length(self.reduction, self.fixed_length)

    def credit(self, batch: Scored) -> Experience:
        assert batch.values is not None, "PPO needs a critic"
        rewards = at_last_token(batch.scores, batch.mask) - batch.kl_coef * self.kl.in_reward(batch)
        advantages, returns = gae(rewards, batch.values, batch.mask, self.gamma, self.lam)
        if self.whiten_advantages:
            advantages = whiten(advantages, batch.mask)
        return batch.widen(Experience, advantages=advantages, returns=returns)

    def token_weights(self, batch: Experience) -> PerToken:
        return token_weights(batch.mask, self.reduction, self.fixed_length)

    def loss(self, now: Forward, batch: Experience) -> LossOutput:
        assert now.values is not None
        assert batch.values is not None
        assert batch.returns is not None
        ratio = likelihood_ratio(now.logprobs, batch.old_logprobs)
        policy = clipped_surrogate(ratio, batch.advantages, self.clip_low, self.clip_high, self.dual_clip)
        value = clipped_value(now.values, batch.values, batch.returns, self.value_clip)
        kl = self.kl.in_loss(now, batch)
        losses = policy + self.value_coef * value + batch.kl_coef * kl
        if self.entropy_coef:  # A bonus of zero would still compute a gradient over the whole vocabulary.
            losses = losses - self.entropy_coef * now.entropy
        return LossOutput(
            loss=batch.total(losses),
            tokens={
                "policy_loss": policy,
                "value_loss": value,
                "kl_penalty": batch.kl_coef * kl,
                "clip_fraction": clipped(ratio, batch.advantages, self.clip_low, self.clip_high),
            },
        )
