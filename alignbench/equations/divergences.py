"""Estimators of KL(pi || ref) per token, from tokens that pi sampled."""

from typing import Literal

import torch

from alignbench.core.batches import Mask, PerToken

Estimator = Literal["k1", "k2", "k3"]
LOG_RATIO_LIMIT = 20.0


def log_ratio(logprobs: PerToken, other: PerToken) -> PerToken:
    """log(pi / other), kept within +-20 so that its exponential stays finite, [n, t]."""
    return (logprobs - other).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def k1(logprobs: PerToken, ref_logprobs: PerToken) -> PerToken:
    """log(pi / ref): unbiased, can be negative, high variance. http://joschu.net/blog/kl-approx.html"""
    return log_ratio(logprobs, ref_logprobs)


def k2(logprobs: PerToken, ref_logprobs: PerToken) -> PerToken:
    """1/2 log(pi / ref)^2: biased in value, its gradient is that of KL(pi || ref). Same source as k1."""
    return 0.5 * log_ratio(logprobs, ref_logprobs).square()


def k3(logprobs: PerToken, ref_logprobs: PerToken) -> PerToken:
    """ref/pi - 1 - log(ref/pi): unbiased, never negative, low variance. Same source as k1.

    The penalty of GRPO, Shao et al. 2024, eq. 4, https://arxiv.org/abs/2402.03300
    """
    reverse = -log_ratio(logprobs, ref_logprobs)
    return reverse.exp() - 1 - reverse


def estimate(how: Estimator, logprobs: PerToken, ref_logprobs: PerToken) -> PerToken:
    """The estimator of that name, [n, t]."""
    return {"k1": k1, "k2": k2, "k3": k3}[how](logprobs, ref_logprobs)


def with_exact_gradient(
    value: PerToken, logprobs: PerToken, ref_logprobs: PerToken, old_logprobs: PerToken
) -> PerToken:
    """The value of any estimator, with a gradient whose expectation is that of KL(pi || ref), [n, t].

        d/dtheta E_pi[k2] = d/dtheta KL(pi || ref);  off policy each token is weighted by rho = pi / pi_old, detached

    On policy the plain gradient of k3 is that of KL(ref || pi), and that of k1 is zero in expectation.
    """
    rho = log_ratio(logprobs, old_logprobs).exp().detach()
    carrier = rho * k2(logprobs, ref_logprobs)
    return value.detach() + carrier - carrier.detach()


def sequence_ratio(logprobs: PerToken, old_logprobs: PerToken, mask: Mask) -> PerToken:
    """(pi(o) / pi_old(o))^(1/|o|) of each whole response, the same for each of its tokens, [n, t].

    Zheng et al. 2025, eq. 7, https://arxiv.org/abs/2507.18071
    """
    total = torch.where(mask, log_ratio(logprobs, old_logprobs), 0.0).sum(1, keepdim=True)
    return torch.exp(total / mask.sum(1, keepdim=True).clamp(min=1)).expand_as(logprobs)


def likelihood_ratio(logprobs: PerToken, old_logprobs: PerToken) -> PerToken:
    """rho = pi / pi_old of each token, [n, t]."""
    return torch.exp(log_ratio(logprobs, old_logprobs))
