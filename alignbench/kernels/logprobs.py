"""Hidden states to token log-probabilities and entropies in fp32, without materializing all logits."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from alignbench.kernels.chunked_lm_head import MASKED_LOGIT, LMHead, needs_tiling, tiled_logprobs

Head = Callable[[Tensor], Tensor]
"""Hidden states [m, h] -> logits [m, v]."""

SLICE_LOGITS = 1 << 25
"""Most logits held at once for a head that cannot be tiled, and on a GPU: 32 Mi numbers, 128 MiB in fp32."""
TILE_LOGITS = 1 << 19
"""Most logits held at once for a linear head on a CPU: 2 MiB in fp32, small enough for malloc to reuse."""


def logits_per_tile(device: str) -> int:
    """Most logits of a linear head held at once on a device type; larger on a GPU, where each kernel launch costs."""
    return TILE_LOGITS if device == "cpu" else SLICE_LOGITS


def vocabulary_logprobs(logits: Tensor, temperature: float, suppressed: Sequence[int]) -> Tensor:
    """log_softmax(logits / temperature) over the vocabulary, fp32, [..., v]: the sampler and the update share it.

    Tokens in `suppressed` get probability 0. `logits` is not modified.
    """
    scaled = logits.float() if temperature == 1 else logits.float() / temperature
    if suppressed and scaled is logits:
        scaled = logits.clone()
    for token in suppressed:
        scaled[..., token] = MASKED_LOGIT
    return scaled.log_softmax(-1)


class _TokenLogprobs(torch.autograd.Function):
    """log pi(a) [m] and the entropy H [m] of logits z [m, v]; saves one [m, v] matrix for backward instead of five.

    d log pi(a) / d z = 1[a] - pi and d H / d z = -pi (log pi + H); the second is computed only if H has a gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, tokens: Tensor, temperature: float, suppressed: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        logp = vocabulary_logprobs(logits, temperature, suppressed)
        entropy = -logp.exp().mul_(logp).sum(-1)
        ctx.save_for_backward(logp, tokens, entropy)
        ctx.set_materialize_grads(False)
        ctx.temperature, ctx.suppressed, ctx.dtype = temperature, list(suppressed), logits.dtype
        return logp.gather(-1, tokens[:, None])[:, 0], entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_logprobs: Tensor | None, grad_entropy: Tensor | None
    ) -> tuple[Tensor | None, None, None, None]:
        logp, tokens, entropy = ctx.saved_tensors
        grad, pi = None, logp.exp()
        if grad_entropy is not None:
            grad = (logp + entropy[:, None]).mul_(pi).mul_(-grad_entropy[:, None])
        if grad_logprobs is not None:
            through = pi.mul_(-grad_logprobs[:, None]).scatter_add_(1, tokens[:, None], grad_logprobs[:, None])
            grad = through if grad is None else through.add_(grad)
        if grad is None:
            return None, None, None, None
        for token in ctx.suppressed:
            grad[:, token] = 0
        if ctx.temperature != 1:
            grad.div_(ctx.temperature)
        return grad.to(ctx.dtype), None, None, None


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
    """log pi of each token [m], and the entropy [m] of its distribution in nats, from hidden states [m, h].

    A linear head is computed in tiles of at most `tile_size` logits (default: by device), any other head in slices of
    at most SLICE_LOGITS. With gradient, slices are recomputed in the backward pass unless there is only one.
    """

    def compute(part: Tensor, part_tokens: Tensor) -> tuple[Tensor, Tensor]:
        logprobs, entropy = _TokenLogprobs.apply(head(part), part_tokens, temperature, suppressed)
        return logprobs, entropy

    tile_size = tile_size or logits_per_tile(hidden.device.type)
    if isinstance(head, LMHead) and needs_tiling(head, len(hidden), tile_size):
        return tiled_logprobs(hidden, tokens, head, temperature=temperature, suppressed=suppressed, tile_size=tile_size)
    size = max(SLICE_LOGITS // vocabulary, 1)
    if len(hidden) <= size:
        return compute(hidden, tokens)
    parts = [
        checkpoint(compute, part, part_tokens, use_reentrant=False)
        if torch.is_grad_enabled()
        else compute(part, part_tokens)
        for part, part_tokens in zip(hidden.split(size), tokens.split(size), strict=True)
    ]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
