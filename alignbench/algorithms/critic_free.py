"""What methods without a critic share: penalties, where the KL stands, who counts; each brings its equations."""

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
from alignbench.equations.reductions import Reduction, refuse_idle_length, token_weights


@dataclass(frozen=True, kw_only=True)
class CriticFree(Algorithm):
    """A `baseline` says what a rollout deserves, a `surrogate` what is descended for each of its tokens."""

    group_size: Count = 8
    """Rollouts drawn for each prompt."""
    reduction: Reduction = "token_mean"
    """How much each token counts in the loss."""
    fixed_length: Count | None = None
    """Divisor for reduction fixed_length: the response limit."""
    target_kl: Positive | None = None
    """Leave the rest of a step's minibatches once the KL per token to the sampler is above this; null is off."""
    kl: Penalty = field(default_factory=FixedKL)
    """The KL penalty."""
    normalizer: EMA | None = None
    """Brings the scores to a known scale; null trains on them as they are."""
    overlong: Overlong | None = None
    """What becomes of answers near the length limit; null treats them as all others."""
    dynamic_sampling: DynamicSampling | None = None
    """Draws other prompts in place of those whose answers all scored the same; null takes them all."""

    least_group: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if self.group_size < self.least_group:
            raise UserError(f"group_size={self.group_size}: one answer has nothing to be compared with; use 2 or more")
        refuse_idle_length(self.reduction, self.fixed_length)

    def credit(self, batch: Scored) -> Experience:
        scores = self.penalised(batch) - batch.kl_coef * self.kl.in_reward(batch).sum(1)
        return batch.widen(Experience, advantages=over_tokens(self.baseline(scores, batch), batch.mask))

    def penalised(self, batch: Scored) -> PerRollout:
        """The scores less what the length costs, [n]."""
        return batch.scores if self.overlong is None else batch.scores - self.overlong(batch)

    @abstractmethod
    def baseline(self, scores: PerRollout, batch: Scored) -> PerRollout:
        """Each rollout's advantage, [n], from its score."""

    @abstractmethod
    def surrogate(self, now: Forward, batch: Experience) -> tuple[PerToken, Mask]:
        """The policy's loss of each token, and where a clip decides it, both [n, t]."""

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
    """How far below 1 the ratio may push."""
    clip_high: Positive = 0.2
    """How far above 1 the ratio may push."""
    dual_clip: AboveOne | None = None
    """Bound on the loss of tokens with negative advantage, as a multiple of it; null is off."""

    def ratio(self, now: Forward, batch: Experience) -> PerToken:
        """rho = pi / pi_old, [n, t]."""
        return likelihood_ratio(now.logprobs, batch.old_logprobs)

    def surrogate(self, now: Forward, batch: Experience) -> tuple[PerToken, Mask]:
        ratio = self.ratio(now, batch)
        loss = clipped_surrogate(ratio, batch.advantages, self.clip_low, self.clip_high, self.dual_clip)
        return loss, clipped(ratio, batch.advantages, self.clip_low, self.clip_high)
