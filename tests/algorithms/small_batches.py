"""Small batches for the tests of algorithms."""

from dataclasses import replace

import torch
from torch import Tensor

from alignbench.core.batches import Experience, Forward, Scored

LENGTHS = (5, 3, 4, 1, 5, 2, 3, 4)
GROUP = (0, 1, 0, 1, 1, 0, 1, 0)
GROUP_SIZE = 4
PER_TOKEN = ("logprobs", "old_logprobs", "ref_logprobs", "values")


def random_batch(seed: int = 0, **changes) -> Scored:
    """Two groups of four, their rollouts not standing together; ragged, and one row has a hole."""
    draw = torch.Generator().manual_seed(seed)
    mask = torch.arange(5)[None] < torch.tensor(LENGTHS)[:, None]
    mask[0, 2] = False
    old = -torch.rand(mask.shape, generator=draw)
    batch = scored(
        mask=mask,
        group=torch.tensor(GROUP),
        scores=torch.randn(len(mask), generator=draw),
        old_logprobs=old,
        ref_logprobs=-torch.rand(mask.shape, generator=draw),
        values=torch.randn(mask.shape, generator=draw),
        kl_coef=0.1,
    )
    return replace(batch, **changes)


def scored(*, old_logprobs: Tensor, mask: Tensor | None = None, responses: Tensor | None = None, **fields) -> Scored:
    """A batch of which only what an algorithm looks at has to be given."""
    n = len(old_logprobs)
    mask = torch.ones_like(old_logprobs, dtype=torch.bool) if mask is None else mask
    return Scored(
        prompts=torch.zeros(n, 1, dtype=torch.long),
        prompt_lengths=torch.ones(n, dtype=torch.long),
        responses=torch.zeros_like(mask, dtype=torch.long) if responses is None else responses,
        mask=mask,
        logprobs=old_logprobs,
        old_logprobs=old_logprobs,
        truncated=torch.zeros(n, dtype=torch.bool),
        texts=("",) * n,
        rows=({"id": 0},) * n,
        **fields,
    )


def experience(algorithm, batch: Scored, **changes) -> Experience:
    """What the engine hands to `loss`: credit given, and each token's share in the loss set."""
    return replace(algorithm.with_weights(algorithm.credit(batch)), **changes)


def forward(batch: Scored, moved: float = 0.0, seed: int = 1) -> Forward:
    """A policy that has moved a little from the one that sampled; leaves to take gradients by."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.zeros_like(batch.old_logprobs) if batch.values is None else batch.values
    parts = (batch.old_logprobs, torch.ones_like(values), values)
    logprobs, entropy, values = ((x + moved * torch.randn(x.shape, generator=draw)).requires_grad_() for x in parts)
    return Forward(logprobs=logprobs, entropy=entropy, values=values)


def descend(algorithm, now: Forward, batch: Experience) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, and its gradient by each thing the policy answered."""
    leaves = {"logprobs": now.logprobs, "entropy": now.entropy, "values": now.values}
    loss = algorithm.loss(now, batch).loss
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return loss.detach(), dict(zip(leaves, gradients, strict=True))
