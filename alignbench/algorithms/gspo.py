"""Group sequence policy optimization: clipping of whole responses by their sequence likelihood ratio.

    s_i = (pi(o_i) / pi_old(o_i))^(1/|o_i|)
    L   = E_i[-min(s_i A_i, clip(s_i, 1 - eps_low, 1 + eps_high) A_i)],  A_i as in GRPO

Zheng et al. 2025, eq. 5 and 7, https://arxiv.org/abs/2507.18071. The paper's own bounds (3e-4 and 4e-4, in the YAML)
are for whole sequences; a mean over sequences needs reduction sequence_mean. Deviations: a group whose scores are all
equal gets exactly 0, and token log-ratios are kept within +-20. For responses of one token it is GRPO.
"""

from dataclasses import dataclass

from alignbench.algorithms.grpo import GRPO
from alignbench.algorithms.kl import FixedKL, Penalty
from alignbench.core.batches import Experience, Forward, PerToken
from alignbench.core.field_types import BelowOne, Positive
from alignbench.equations.divergences import sequence_ratio
from alignbench.equations.reductions import Reduction


@dataclass(frozen=True, kw_only=True)
class GSPO(GRPO):
    """GRPO with one ratio for each response."""

    clip_low: BelowOne = 3e-4
    """Lower clip range: the ratio of a response is clipped at 1 - clip_low."""
    clip_high: Positive = 4e-4
    """Upper clip range: the ratio of a response is clipped at 1 + clip_high."""
    kl: Penalty = FixedKL(coef=0.0)
    """KL penalty; off, as in the paper."""
    reduction: Reduction = "sequence_mean"
    """How the losses of tokens are averaged."""

    def ratio(self, now: Forward, batch: Experience) -> PerToken:
        """s_i for each token of response i, [n, t]."""
        return sequence_ratio(now.logprobs, batch.old_logprobs, batch.mask)
