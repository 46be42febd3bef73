"""Hidden states -> log p(token) and entropy, in fp32, a slice or a tile at a time, never the whole [n, t, v]."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from alignbench.kernels.chunked_lm_head import MASKED_LOGIT, needs_tiling, tiled_logprobs

Head = Callable[[Tensor], Tensor]
"""Hidden states [m, h] -> logits [m, vocabulary]."""

SLICE_LOGITS = 1 << 25
"""Logits held at once: 32 M numbers, 128 MiB in fp32."""
TILE_LOGITS = 1 << 19
"""And of a linear head on a CPU: 2 MiB in fp32, for which memory need not be asked for anew, nor waited for."""


def logits_per_tile(device: str) -> int:
    """How many logits of a linear head are held at once on a device of that kind: on a GPU each call has its price."""
    return TILE_LOGITS if device == "cpu" else SLICE_LOGITS


def vocabulary_logprobs(logits: Tensor, temperature: float, suppressed: Sequence[int]) -> Tensor:
    """log pi over the vocabulary, fp32, as both the sampler and the update see it: logits / T, then log-softmax."""
    scaled = logits.float() if temperature == 1 else logits.float() / temperature
    if suppressed and scaled is logits:
        scaled = logits.clone()
    for token in suppressed:
        scaled[..., token] = MASKED_LOGIT
    return scaled.log_softmax(-1)


class _TokenLogprobs(torch.autograd.Function):
    """log pi(a) [m] and the entropy H [m] of logits z [m, v]: keeps one matrix for the backward pass instead of five,
    and works in place, since each such matrix is the largest thing there is.

    d log pi(a) / d z = 1[a] - pi and d H / d z = -pi (log pi + H), which is worked out only where H is learned from.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, tokens: Tensor, temperature: float, never: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        logp = vocabulary_logprobs(logits, temperature, never)
        entropy = -logp.exp().mul_(logp).sum(-1)
        ctx.save_for_backward(logp, tokens, entropy)
        ctx.set_materialize_grads(False)
        ctx.temperature, ctx.suppressed, ctx.dtype = temperature, list(never), logits.dtype
        return logp.gather(-1, tokens[:, None])[:, 0], entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, by_chosen: Tensor | None, by_entropy: Tensor | None
    ) -> tuple[Tensor | None, None, None, None]:
        logp, tokens, entropy = ctx.saved_tensors
        found, pi = None, logp.exp()
        if by_entropy is not None:
            found = (logp + entropy[:, None]).mul_(pi).mul_(-by_entropy[:, None])
        if by_chosen is not None:
            through = pi.mul_(-by_chosen[:, None]).scatter_add_(1, tokens[:, None], by_chosen[:, None])
            found = through if found is None else through.add_(found)
        if found is None:
            return None, None, None, None
        for token in ctx.suppressed:
            found[:, token] = 0
        if ctx.temperature != 1:
            found.div_(ctx.temperature)
        return found.to(ctx.dtype), None, None, None


def token_logprobs(
    hidden: Tensor,
    tokens: Tensor,
    head: Head,
    *,
    vocabulary: int,
    temperature: float,
    suppressed: Sequence[int],
    tile_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """log pi of each token [m] and the entropy [m] of the distribution it was drawn from, given hidden states [m, h].

    A linear head has no more logits at once than a `tile`, which is by device where it is not given, and another no
    more than a slice. With gradient, all but a lone one are computed again in the backward pass instead of being kept.
    """

    def one(part: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        chosen, entropy = _TokenLogprobs.apply(head(part), wanted, temperature, suppressed)
        return chosen, entropy

    tile_size = tile_size or logits_per_tile(hidden.device.type)
    if needs_tiling(head, len(hidden), tile_size):
        return tiled_logprobs(hidden, tokens, head, temperature=temperature, suppressed=suppressed, tile_size=tile_size)
    size = max(SLICE_LOGITS // vocabulary, 1)
    if len(hidden) <= size:
        return one(hidden, tokens)
    parts = [
        checkpoint(one, part, wanted, use_reentrant=False) if torch.is_grad_enabled() else one(part, wanted)
        for part, wanted in zip(hidden.split(size), tokens.split(size), strict=True)
    ]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
