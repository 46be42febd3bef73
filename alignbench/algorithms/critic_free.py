"""Base class of methods without a critic: KL penalty, length penalty, token weights and the clipped surrogate."""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

from alignbench.algorithms.dynamic_sampling import DynamicSampling
from alignbench.algorithms.kl import FixedKL, Penalty
from alignbench.algorithms.normalizer import EMA
from alignbench.algorithms.overlong import Overlong
from alignbench.core.batches import Experience, Forward, LossOutput, Mask, PerRollout, PerToken, Scored
from alignbench.core.errors import UserError
from alignbench.core.field_types import AboveOne, BelowOne, Count, Positive
from alignbench.core.protocols import Algorithm
from alignbench.equations.advantages import over_tokens
from alignbench.equations.divergences import likelihood_ratio
from alignbench.equations.objectives import clipped, clipped_surrogate
from alignbench.equations.reductions import Reduction, check_fixed_length, token_weights


@dataclass(frozen=True, kw_only=True)
class CriticFree(Algorithm):
    """A method defines `baseline`, the advantage of each rollout, and `surrogate`, the policy loss of each token."""

    group_size: Count = 8
    """Rollouts sampled for each prompt."""
    reduction: Reduction = "token_mean"
    """How the losses of tokens are averaged."""
    fixed_length: Count | None = None
    """Divisor for reduction fixed_length: the response limit."""
    target_kl: Positive | None = None
    """Skip the remaining minibatches of a step once the KL per token to pi_old exceeds this; null is off."""
    kl: Penalty = field(default_factory=FixedKL)
    """The KL penalty."""
    normalizer: EMA | None = None
    """Rescales the scores; null trains on the raw scores."""
    overlong: Overlong | None = None
    """Penalty and masking of answers near the length limit; null is off."""
    dynamic_sampling: DynamicSampling | None = None
    """Replaces prompts whose answers all have the same score by newly sampled ones; null trains on all prompts."""

    least_group: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.group_size < self.least_group:
            raise UserError(
                f"group_size={self.group_size}: a group of one has no siblings to compare with; use 2 or more"
            )
        check_fixed_length(self.reduction, self.fixed_length)

    def credit(self, batch: Scored) -> Experience:
        scores = self.penalised(batch) - batch.kl_coef * self.kl.in_reward(batch).sum(1)
        return batch.widen(Experience, advantages=over_tokens(self.baseline(scores, batch), batch.mask))

    def penalised(self, batch: Scored) -> PerRollout:
        """The scores minus the length penalty, [n]."""
        return batch.scores if self.overlong is None else batch.scores - self.overlong(batch)

    @abstractmethod
    def baseline(self, scores: PerRollout, batch: Scored) -> PerRollout:
        """Each rollout's advantage, [n], from its score."""

    @abstractmethod
    def surrogate(self, now: Forward, batch: Experience) -> tuple[PerToken, Mask]:
        """The policy loss of each token, and where it is clipped, both [n, t]."""

    def token_weights(self, batch: Experience) -> PerToken:
        mask = batch.mask if self.overlong is None else self.overlong.counted(batch)
        return token_weights(mask, self.reduction, self.fixed_length)

    def loss(self, now: Forward, batch: Experience) -> LossOutput:
        policy, clip = self.surrogate(now, batch)
        kl = self.kl.in_loss(now, batch)
        return LossOutput(
            loss=batch.total(policy + batch.kl_coef * kl),
            tokens={
                "policy_loss": policy,
                "kl_penalty": batch.kl_coef * kl,
                "clip_fraction": clip,
            },
        )


@dataclass(frozen=True, kw_only=True)
class Clipped(CriticFree):
    """The surrogate of PPO: -min(rho A, clip(rho, 1 - eps_low, 1 + eps_high) A)."""

    clip_low: BelowOne = 0.2
    """Lower clip range: the ratio is clipped at 1 - clip_low."""
    clip_high: Positive = 0.2
    """Upper clip range: the ratio is clipped at 1 + clip_high."""
    dual_clip: AboveOne | None = None
    """Bound on the loss of tokens with negative advantage, as a multiple of it; null is off."""

    def ratio(self, now: Forward, batch: Experience) -> PerToken:
        """rho = pi / pi_old, [n, t]."""
        return likelihood_ratio(now.logprobs, batch.old_logprobs)

    def surrogate(self, now: Forward, batch: Experience) -> tuple[PerToken, Mask]:
        ratio = self.ratio(now, batch)
        loss = clipped_surrogate(ratio, batch.advantages, self.clip_low, self.clip_high, self.dual_clip)
        return loss, clipped(ratio, batch.advantages, self.clip_low, self.clip_high)
