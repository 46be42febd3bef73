"""Advantage estimators for tokens and for rollouts; pure functions that ignore values outside the mask."""

import torch
from torch import Tensor

from alignbench.core.batches import Group, Mask, PerRollout, PerToken, Scalar


def gae(rewards: PerToken, values: PerToken, mask: Mask, gamma: float, lam: float) -> tuple[PerToken, PerToken]:
    """Generalized advantage estimation; returns (advantages, returns), both [n, t] and 0 outside the mask.

        delta_t = r_t + gamma V(s_{t+1}) - V(s_t)
        A_t     = delta_t + gamma lam A_{t+1}          returns_t = A_t + V(s_t)

    Schulman et al. 2016, eq. 11 and 16, https://arxiv.org/abs/1506.02438. V after the last token is 0: the length
    limit ends the episode, it is part of the task. Masked positions inside a row are stepped over, not through.
    """
    zero = torch.zeros_like(values[:, 0])
    next_advantage, next_value, columns = zero, zero, []
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * lam * next_advantage
        columns.append(torch.where(mask[:, t], advantage, zero))
        next_advantage = torch.where(mask[:, t], advantage, next_advantage)
        next_value = torch.where(mask[:, t], values[:, t], next_value)
    advantages = torch.stack(columns[::-1], dim=1)
    return advantages, torch.where(mask, advantages + values, 0.0)


def group_mean(scores: PerRollout, group: Group) -> PerRollout:
    """The mean score of each rollout's own group, [n]."""
    total, size, of = _group_sums(scores.double(), group)
    return (total / size)[of].to(scores.dtype)


def group_std(scores: PerRollout, group: Group, ddof: int = 1) -> PerRollout:
    """The standard deviation of each rollout's own group, [n]; 0 for a group of one.

    Two passes in double precision, so that equal scores give exactly 0.
    """
    total, size, of = _group_sums(scores.double(), group)
    centred = scores.double() - (total / size)[of]
    squares, _, _ = _group_sums(centred.square(), group)
    return (squares / (size - ddof).clamp(min=1)).sqrt()[of].to(scores.dtype)


def batch_std(scores: PerRollout, ddof: int = 1) -> Scalar:
    """The standard deviation over all rollouts of a step; 0 for a single rollout."""
    centred = scores.double() - scores.double().mean()
    return (centred.square().sum() / max(len(scores) - ddof, 1)).sqrt().to(scores.dtype)


def divided(centred: PerRollout, spread: PerRollout | Scalar, eps: float) -> PerRollout:
    """centred / (spread + eps), [n]; exactly 0 where there is no spread."""
    return torch.where(spread > 0, centred / (spread + eps), torch.zeros_like(centred))


def leave_one_out(scores: PerRollout, group: Group) -> PerRollout:
    """Score minus the mean of the others in the group, [n]; 0 for a group of one.

        A_i = score_i - 1/(G-1) sum_{j != i} score_j = G/(G-1) (score_i - mean)

    Kool et al. 2019; Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740
    """
    total, size, of = _group_sums(scores.double(), group)
    centred = scores.double() - (total / size)[of]
    return (centred * (size / (size - 1).clamp(min=1))[of]).to(scores.dtype)


def standardised(scores: PerRollout, group: Group, eps: float, ddof: int = 1) -> PerRollout:
    """(score - group mean) / (group std + eps), [n]; exactly 0 where the group's scores are all equal."""
    return divided(scores - group_mean(scores, group), group_std(scores, group, ddof), eps)


def whiten(x: PerToken, mask: Mask, ddof: int = 1, shift_mean: bool = True) -> PerToken:
    """Unit variance, and zero mean unless `shift_mean` is off, over the masked tokens of the whole batch, [n, t].

    Without the shift every value keeps its sign: it is only scaled. One valid token has no variance: it becomes 0.
    """
    kept = x[mask]
    if len(kept) < 2:
        return torch.zeros_like(x)
    mean = kept.mean() if shift_mean else 0.0
    return torch.where(mask, (x - mean) * torch.rsqrt(kept.var(correction=ddof) + 1e-8), 0.0)


def at_last_token(scores: PerRollout, mask: Mask) -> PerToken:
    """The score of each rollout as the reward of its last token, [n, t]."""
    last = mask & (mask.cumsum(1) == mask.sum(1, keepdim=True))
    return torch.where(last, scores[:, None], 0.0)


def to_go(rewards: PerToken, mask: Mask) -> PerToken:
    """The sum of a rollout's rewards from each token to its end, [n, t]; 0 outside the mask."""
    counted = torch.where(mask, rewards, 0.0)
    return torch.where(mask, counted.flip(1).cumsum(1).flip(1), 0.0)


def over_tokens(advantages: PerRollout, mask: Mask) -> PerToken:
    """The same advantage for every token of a rollout, [n, t]."""
    return torch.where(mask, advantages[:, None], 0.0)


def beta_divided(shares: PerRollout, group: Group, alpha: float, beta: float) -> PerRollout:
    """(R - p) / f(p; alpha, beta), [n]; p is the group's mean of R in [0, 1], f the density of a Beta distribution.

    Xiao et al. 2025, https://arxiv.org/abs/2506.02864. For R of 0 or 1, alpha = beta = 1 is R - p, and alpha = beta =
    3/2 is the group's z-score (ddof 0) times pi / 8. A group whose R are all equal gets exactly 0.
    """
    p = group_mean(shares, group).double().clamp(0, 1)
    density = torch.distributions.Beta(p.new_tensor(alpha), p.new_tensor(beta)).log_prob(p).exp()
    mixed = group_std(shares, group) > 0
    return torch.where(mixed, (shares.double() - p) / density.clamp(min=1e-6), 0.0).to(shares.dtype)


def _group_sums(x: Tensor, group: Group) -> tuple[Tensor, Tensor, Tensor]:
    """Sum and size of each group, and the group index of each rollout."""
    names, of = torch.unique(group, return_inverse=True)
    total = torch.zeros(len(names), dtype=x.dtype, device=x.device).index_add(0, of, x)
    return total, of.bincount(minlength=len(names)), of
