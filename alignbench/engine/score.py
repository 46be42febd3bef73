"""Rollouts -> Scored: what the scorer says of each rollout, and what each model thinks of each token."""

from collections.abc import Iterator

import torch
from torch import Tensor

from alignbench.core.batches import Forward, Pairs, PerRollout, Rollouts, Scored, Sequences
from alignbench.core.protocols import Policy, ScoreModel, Scorer


@torch.no_grad()
def score(
    rollouts: Rollouts,
    scorer: Scorer,
    policy: Policy,
    kl_coef: float,
    microbatch_size: int,
    *,
    tokens: int | None = None,
    rescored: bool = True,
) -> Scored:
    """Score, and take old and reference log-probabilities from the same forward pass that the update will use.

    Unless `rescored`, old ones are those the sampler took, and there are no values.
    """
    scores = scorer(rollouts)
    old = read(policy, rollouts, microbatch_size, tokens) if rescored else None
    with policy.reference():
        reference = read(policy, rollouts, microbatch_size, tokens)
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
def read(policy: Policy, batch: Sequences, microbatch_size: int, tokens: int | None = None) -> Forward:
    """What a policy thinks of a whole batch, a few rows, or `tokens`, at a time."""
    logprobs = torch.zeros_like(batch.mask, dtype=torch.float32)
    entropy, values = torch.zeros_like(logprobs), None
    for rows in microbatches(batch, microbatch_size, siblings(policy, batch), may_part=True, tokens=tokens):
        with torch.inference_mode():  # what it makes may not be learned from: all of it is copied
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
    batch: Sequences | Pairs,
    size: int,
    together: Tensor | None = None,
    *,
    may_part: bool = False,
    tokens: int | None = None,
    shared: bool = True,
) -> Iterator[Tensor]:
    """Row numbers, `size` at a time or as many as have that many `tokens`, rows of like length together.

    Rows that share a number in `together` [n] stay together, and the tokens of their prompt count once where it is
    `shared`; a group that is too large is a microbatch of its own, or several where it `may_part`.
    """
    lengths, room = batch.lengths(), tokens or size
    sizes = lengths if tokens else torch.ones_like(lengths)
    if together is None:
        order = lengths.argsort(descending=True, stable=True)
        yield from order.split(filled(sizes[order], room))
        return
    once = batch.prompt_lengths if tokens and shared and isinstance(batch, Sequences) else torch.zeros_like(lengths)
    own, (names, of) = sizes - once, torch.unique(together, return_inverse=True)
    zeros = torch.zeros(len(names), dtype=lengths.dtype, device=of.device)
    of_group = zeros.scatter(0, of, once).index_add(0, of, own)
    order = zeros.scatter_reduce(0, of, lengths, "amax").argsort(descending=True, stable=True)
    for groups in order.split(filled(of_group[order], room)):
        rows = torch.isin(of, groups).nonzero()[:, 0]
        parts = may_part and len(groups) == 1
        yield from rows.split(filled(own[rows], room - int(once[rows[0]]))) if parts else (rows,)


def filled(sizes: Tensor, room: int) -> list[int]:
    """How many of these things [n], in their order, go together each time: as many as there is room for, or one."""
    counts, left = list[int](), 0
    for size in sizes.tolist():
        if size > left or not counts:
            counts.append(0)
            left = room
        counts[-1] += 1
        left -= size
    return counts


def siblings(policy: Policy, batch: Sequences) -> Tensor | None:
    """Which rows had better stand in one microbatch [n]: a group, where the policy reads its prompt once for all."""
    return batch.group if policy.shares_prompts and isinstance(batch, Rollouts) else None
