"""Policy and value losses of each token; `reductions` gives the weight of each token."""

import torch

from alignbench.core.batches import Mask, PerToken


def clipped_surrogate(
    ratio: PerToken, advantages: PerToken, low: float, high: float, dual_clip: float | None = None
) -> PerToken:
    """-min(rho A, clip(rho, 1 - low, 1 + high) A), [n, t].

    Schulman et al. 2017, eq. 7, https://arxiv.org/abs/1707.06347. With `dual_clip` c > 1 the loss of a token with A < 0
    is at most -c A: Ye et al. 2020, eq. 5, https://arxiv.org/abs/1912.09729
    """
    loss = -torch.min(ratio * advantages, ratio.clamp(1 - low, 1 + high) * advantages)
    if dual_clip is None:
        return loss
    return torch.where(advantages < 0, torch.min(loss, -dual_clip * advantages), loss)


def clipped(ratio: PerToken, advantages: PerToken, low: float, high: float) -> Mask:
    """Where clipping is active: the ratio is outside its range in the direction of the advantage, [n, t]."""
    return ((ratio > 1 + high) & (advantages > 0)) | ((ratio < 1 - low) & (advantages < 0))


def weighted_logprob(logprobs: PerToken, weight: PerToken, advantages: PerToken) -> PerToken:
    """-w A log pi, without a gradient through the weight w, [n, t].

    Chen et al. 2025, eq. 4, https://arxiv.org/abs/2506.13585
    """
    return -weight.detach() * advantages * logprobs


def soft_gate(ratio: PerToken, advantages: PerToken, tau_positive: float, tau_negative: float) -> PerToken:
    """-4/tau sigmoid(tau (rho - 1)) A, tau by the sign of A, [n, t]: its slope at rho = 1 is that of -rho A.

    Gao et al. 2025, https://arxiv.org/abs/2511.20347
    """
    tau = torch.where(advantages > 0, tau_positive, tau_negative)
    return -4 / tau * torch.sigmoid(tau * (ratio - 1)) * advantages


def clipped_value(values: PerToken, old_values: PerToken, returns: PerToken, clip: float | None) -> PerToken:
    """1/2 max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2), [n, t]; the plain squared error without a clip.

    The value loss of OpenAI's PPO implementation, not of the paper; the 1/2 stands inside.
    """
    error = (values - returns).square()
    if clip is None:
        return 0.5 * error
    near = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * torch.max(error, (near - returns).square())
