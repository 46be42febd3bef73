"""Rollouts -> Scored: what the scorer says of each rollout, and what each model thinks of each token."""

from collections.abc import Iterator

import torch
from torch import Tensor

from alignbench.core.batches import Forward, Pairs, PerRollout, Rollouts, Scored, Sequences
from alignbench.core.contracts import Policy, ScoreModel, Scorer


@torch.no_grad()
def score(
    rollouts: Rollouts, scorer: Scorer, policy: Policy, kl_coef: float, microbatch_size: int, *, rescored: bool = True
) -> Scored:
    """Score, and take old and reference log-probabilities from the same forward pass that the update will use.

    Unless `rescored`, old ones are those the sampler took, and there are no values.
    """
    scores = scorer(rollouts)
    old = read(policy, rollouts, microbatch_size) if rescored else None
    with policy.reference():
        reference = read(policy, rollouts, microbatch_size)
    return rollouts.widen(
        Scored,
        scores=scores.total.to(rollouts.mask.device),
        components=scores.components,
        old_logprobs=rollouts.logprobs if old is None else old.logprobs,
        ref_logprobs=reference.logprobs,
        values=old and old.values,
        kl_coef=kl_coef,
    )


@torch.no_grad()
def read(policy: Policy, batch: Sequences, microbatch_size: int) -> Forward:
    """What a policy thinks of a whole batch, a few rows at a time."""
    logprobs = torch.zeros_like(batch.mask, dtype=torch.float32)
    entropy, values = torch.zeros_like(logprobs), None
    for rows in microbatches(batch, microbatch_size, siblings(policy, batch), may_part=True):
        part = policy(batch[rows])
        logprobs[rows], entropy[rows] = part.logprobs, part.entropy
        if part.values is not None:
            values = torch.zeros_like(logprobs) if values is None else values
            values[rows] = part.values
    return Forward(logprobs=logprobs, entropy=entropy, values=values)


@torch.no_grad()
def judge(model: ScoreModel, batch: Sequences, microbatch_size: int) -> PerRollout:
    """The score of each row of a whole batch, [n], a few rows at a time."""
    scores = torch.zeros(len(batch), device=batch.mask.device)
    for rows in microbatches(batch, microbatch_size):
        scores[rows] = model(batch[rows]).to(scores)
    return scores


def microbatches(
    batch: Sequences | Pairs, size: int, together: Tensor | None = None, *, may_part: bool = False
) -> Iterator[Tensor]:
    """Row numbers, `size` at a time, rows of like length together so that little is spent on padding.

    Rows that share a number in `together` [n] stay together; a group larger than `size` is a microbatch of its own,
    or several where it `may_part`.
    """
    if together is None:
        yield from batch.lengths().argsort(descending=True, stable=True).split(size)
        return
    names, of = torch.unique(together, return_inverse=True)
    longest = torch.zeros(len(names), device=of.device).scatter_reduce(0, of, batch.lengths().float(), "amax")
    at_once = max(size // int(of.bincount().max()), 1)
    for groups in longest.argsort(descending=True, stable=True).split(at_once):
        rows = torch.isin(of, groups).nonzero()[:, 0]
        yield from rows.split(size) if may_part else (rows,)


def siblings(policy: Policy, batch: Sequences) -> Tensor | None:
    """Which rows had better stand in one microbatch [n]: a group, where the policy reads its prompt once for all."""
    return batch.group if policy.shares_prompts and isinstance(batch, Rollouts) else None
