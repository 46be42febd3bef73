"""Scores rollouts, and computes the log-probabilities of policy and reference, in microbatches."""

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
    """Score rollouts, and compute old and reference log-probabilities by the forward pass that the update uses.

    Unless `rescored`, the old log-probabilities are the sampler's, and there are no values.
    """
    scores = scorer(rollouts)
    old = compute_forward(policy, rollouts, microbatch_size, tokens) if rescored else None
    with policy.reference():
        reference = compute_forward(policy, rollouts, microbatch_size, tokens)
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
def compute_forward(policy: Policy, batch: Sequences, microbatch_size: int, tokens: int | None = None) -> Forward:
    """The policy's outputs [n, t] for a whole batch, computed in microbatches of rows, or of `tokens` tokens."""
    logprobs = torch.zeros_like(batch.mask, dtype=torch.float32)
    entropy, values = torch.zeros_like(logprobs), None
    for rows in microbatches(batch, microbatch_size, sibling_groups(policy, batch), split_groups=True, tokens=tokens):
        with torch.inference_mode():  # Inference tensors cannot be trained on: all of them are copied.
            part = policy(batch[rows])
        logprobs[rows], entropy[rows] = part.logprobs, part.entropy
        if part.values is not None:
            values = torch.zeros_like(logprobs) if values is None else values
            values[rows] = part.values
    return Forward(logprobs=logprobs, entropy=entropy, values=values)


@torch.no_grad()
def score_with_model(model: ScoreModel, batch: Sequences, microbatch_size: int) -> PerRollout:
    """The reward model's score of each row of a batch, [n], computed in microbatches."""
    scores = torch.zeros(len(batch), device=batch.mask.device)
    for rows in microbatches(batch, microbatch_size):
        scores[rows] = model(batch[rows]).to(scores)
    return scores


def microbatches(
    batch: Sequences | Pairs,
    size: int,
    groups: Tensor | None = None,
    *,
    split_groups: bool = False,
    tokens: int | None = None,
    shared_prompts: bool = True,
) -> Iterator[Tensor]:
    """Row numbers of each microbatch: `size` rows or up to `tokens` tokens, rows of similar length together.

    Rows with the same number in `groups` [n] stay together, and with `shared_prompts` the tokens of their prompt count
    once. A group that is too large is a microbatch of its own, or several with `split_groups`.
    """
    lengths, capacity = batch.lengths(), tokens or size
    sizes = lengths if tokens else torch.ones_like(lengths)
    if groups is None:
        order = lengths.argsort(descending=True, stable=True)
        yield from order.split(split_sizes(sizes[order], capacity))
        return
    prompt_sizes = torch.zeros_like(lengths)
    if tokens and shared_prompts and isinstance(batch, Sequences):
        prompt_sizes = batch.prompt_lengths
    own_sizes, (names, group_index) = sizes - prompt_sizes, torch.unique(groups, return_inverse=True)
    zeros = torch.zeros(len(names), dtype=lengths.dtype, device=group_index.device)
    group_sizes = zeros.scatter(0, group_index, prompt_sizes).index_add(0, group_index, own_sizes)
    order = zeros.scatter_reduce(0, group_index, lengths, "amax").argsort(descending=True, stable=True)
    for together in order.split(split_sizes(group_sizes[order], capacity)):
        rows = torch.isin(group_index, together).nonzero()[:, 0]
        if split_groups and len(together) == 1:
            yield from rows.split(split_sizes(own_sizes[rows], capacity - int(prompt_sizes[rows[0]])))
        else:
            yield rows


def split_sizes(sizes: Tensor, capacity: int) -> list[int]:
    """How many consecutive items of `sizes` [n] go into each part: as many as fit into `capacity`, at least one."""
    counts, left = list[int](), 0
    for size in sizes.tolist():
        if size > left or not counts:
            counts.append(0)
            left = capacity
        counts[-1] += 1
        left -= size
    return counts


def sibling_groups(policy: Policy, batch: Sequences) -> Tensor | None:
    """The group [n] of each row where the policy computes a shared prompt once, so that a group stays together."""
    return batch.group if policy.shares_prompts and isinstance(batch, Rollouts) else None
