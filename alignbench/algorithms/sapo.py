"""Soft adaptive policy optimization: a soft gate on the ratio replaces clipping.

    L = E[-4/tau sigmoid(tau (rho - 1)) A],  tau = tau_positive where A > 0, else tau_negative;  A as in GRPO

Gao et al. 2025, https://arxiv.org/abs/2511.20347. Deviations: a group whose scores are all equal gets exactly 0, and
log-ratios are kept within +-20. At rho = 1 its gradient is that of GRPO.
"""

from dataclasses import dataclass

import torch

from alignbench.algorithms.grpo import GroupRelative
from alignbench.algorithms.kl import FixedKL, Penalty
from alignbench.core.batches import Experience, Forward, Mask, PerToken
from alignbench.core.field_types import Positive
from alignbench.equations.divergences import likelihood_ratio
from alignbench.equations.objectives import soft_gate
from alignbench.equations.reductions import Reduction


@dataclass(frozen=True, kw_only=True)
class SAPO(GroupRelative):
    """GRPO in which the gradient of a token decays smoothly with its ratio."""

    tau_positive: Positive = 1.0
    """Temperature of the gate where the advantage is positive; larger values close it faster."""
    tau_negative: Positive = 1.05
    """The same elsewhere; larger, since lowering one token's probability raises that of all others."""
    kl: Penalty = FixedKL(coef=0.0)
    """KL penalty; off, as in the paper."""
    reduction: Reduction = "sequence_mean"
    """How the losses of tokens are averaged."""

    def surrogate(self, now: Forward, batch: Experience) -> tuple[PerToken, Mask]:
        ratio = likelihood_ratio(now.logprobs, batch.old_logprobs)
        loss = soft_gate(ratio, batch.advantages, self.tau_positive, self.tau_negative)
        return loss, torch.zeros_like(batch.mask)
