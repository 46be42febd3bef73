"""Soft adaptive policy optimization: a gate that closes slowly, in place of the clip.

    L = E[-4/tau sigmoid(tau (rho - 1)) A],  tau = tau_positive where A > 0, else tau_negative;  A as in GRPO

Gao et al. 2025, https://arxiv.org/abs/2511.20347. Deviations: a group whose scores are all equal gets exactly 0, and
log-ratios are kept within +-20. At rho = 1 its gradient is that of GRPO.
"""

from dataclasses import dataclass

import torch

from alignbench.algorithms.grpo import GroupRelative
from alignbench.core.batches import Experience, Forward, Mask, PerToken
from alignbench.core.field_types import Positive
from alignbench.equations.divergences import likelihood_ratio
from alignbench.equations.objectives import soft_gate
from alignbench.equations.reductions import Reduction


@dataclass(frozen=True, kw_only=True)
class SAPO(GroupRelative):
    """GRPO whose trust in a token fades with its ratio instead of ending."""

    tau_positive: Positive = 1.0
    """How fast the gate closes where the advantage is positive."""
    tau_negative: Positive = 1.05
    """How fast it closes elsewhere; faster, since pushing a token down raises all others."""
    reduction: Reduction = "sequence_mean"
    """How much each token counts in the loss."""

    def surrogate(self, now: Forward, batch: Experience) -> tuple[PerToken, Mask]:
        ratio = likelihood_ratio(now.logprobs, batch.old_logprobs)
        loss = soft_gate(ratio, batch.advantages, self.tau_positive, self.tau_negative)
        return loss, torch.zeros_like(batch.mask)
