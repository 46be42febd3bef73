"""A linear LM head in tiles of tokens x vocabulary: neither the logits nor their gradient are ever materialized."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from alignbench.kernels import onednn

MASKED_LOGIT = -1e9
"""The logit of a token with probability 0: finite, so that 0 * log 0 is 0 and not NaN."""
MIN_TILE_WIDTH, TILE_WIDTH_MULTIPLE = 512, 64
"""Least number of vocabulary columns of a tile, unless the vocabulary is smaller, and the multiple it is rounded to."""
LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class LMHead:
    """Hidden states [m, h] -> logits [m, v]: z from the layer, or cap tanh(z / cap) with soft-capping."""

    layer: nn.Module
    cap: float | None = None

    def __call__(self, hidden: Tensor) -> Tensor:
        return self.softcap(self.layer(hidden))

    def softcap(self, logits: Tensor) -> Tensor:
        """The logits, soft-capped if the model has a cap."""
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap


def needs_tiling(head: LMHead, tokens: int, tile_size: int) -> bool:
    """Whether a plain linear head would produce more than `tile_size` logits for `tokens` hidden states.

    False for other heads, such as one with an adapter, and for a vocabulary of at most MIN_TILE_WIDTH, whose logits
    are few compared with the activations.
    """
    if not isinstance(head.layer, nn.Linear) or type(head.layer) not in (nn.Linear, onednn.OneDNNLinear):
        return False
    vocabulary = len(head.layer.weight)
    return vocabulary > MIN_TILE_WIDTH and tokens * vocabulary > tile_size


def tiled_logprobs(
    hidden: Tensor, tokens: Tensor, head: LMHead, *, temperature: float, suppressed: Sequence[int], tile_size: int
) -> tuple[Tensor, Tensor]:
    """log pi of each token [m] and the entropy [m] in nats from hidden states [m, h], `tile_size` logits at a time.

    The backward pass recomputes the tiles, and accumulates into `weight.grad` in place if autograd allows it.
    """
    layer, count = head.layer, len(hidden)
    assert isinstance(layer, nn.Linear), "needs_tiling admits linear heads only"
    by_onednn = isinstance(layer, onednn.OneDNNLinear) and count >= onednn.MIN_ROWS[True]
    if by_onednn:
        padding = -count % onednn.row_multiple(count, large=True)
        hidden, tokens = functional.pad(hidden, (0, 0, 0, padding)), functional.pad(tokens, (0, padding))
    tiling = _Tiling(
        head=head, temperature=temperature, suppressed=tuple(suppressed), tile_size=tile_size, by_onednn=by_onednn
    )
    logprobs, entropy = _TiledLogprobs.apply(hidden, layer.weight, layer.bias, tokens, tiling)
    return logprobs[:count], entropy[:count]


@dataclass(frozen=True, kw_only=True)
class _Tiling:
    """How the logits are split into tiles, and how a tile is computed."""

    head: LMHead
    temperature: float
    suppressed: tuple[int, ...]
    tile_size: int
    by_onednn: bool

    def row_slices(self, count: int) -> Iterator[slice]:
        """The tokens of each row of tiles."""
        return _slices(count, max(self.tile_size // MIN_TILE_WIDTH, 1))

    def column_slices(self, rows: int, vocabulary: int) -> Iterator[slice]:
        """The vocabulary columns of each tile of `rows` tokens."""
        size = self.tile_size // rows
        return _slices(vocabulary, max(size - size % TILE_WIDTH_MULTIPLE, 1))

    def raw_logits(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, columns: slice) -> Tensor:
        """A tile of the layer's output, before soft-capping and temperature."""
        return self.linear(hidden, weight[columns], None if bias is None else bias[columns])

    def linear(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """inputs [m, i] times the transpose of weight [o, i], plus bias [o]."""
        return (onednn.linear if self.by_onednn else functional.linear)(inputs, weight, bias)

    def scaled_logits(self, raw: Tensor, columns: slice) -> Tensor:
        """Layer output -> the logits that are sampled from, fp32; in place where possible."""
        logits = self.head.softcap(raw).float()
        if self.temperature != 1:
            logits.div_(self.temperature)
        for token in self._suppressed_in(columns):
            logits[:, token] = MASKED_LOGIT
        return logits

    def raw_gradient(self, grad_logits: Tensor, raw: Tensor, columns: slice) -> Tensor:
        """Gradient of the scaled logits -> gradient of the layer output, in its dtype; in place where possible."""
        for token in self._suppressed_in(columns):
            grad_logits[:, token] = 0
        if self.temperature != 1:
            grad_logits.div_(self.temperature)
        if self.head.cap is not None:
            grad_logits.mul_(1 - torch.tanh(raw.float() / self.head.cap).square_())
        return grad_logits.to(raw.dtype)

    def _suppressed_in(self, columns: slice) -> list[int]:
        return [token - columns.start for token in self.suppressed if columns.start <= token < columns.stop]


def _slices(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


@dataclass
class _OnlineSoftmax:
    """Over the columns so far, for each token: M = max z, S = sum e^(z-M), U = sum (z-M) e^(z-M), and z_a.

    The sums are rescaled when the maximum grows: Milakov and Gimelshein 2018, https://arxiv.org/abs/1805.02867.
    """

    largest: Tensor
    total: Tensor
    spread: Tensor
    chosen: Tensor

    @classmethod
    def empty(cls, tokens: Tensor) -> "_OnlineSoftmax":
        """Before the first column."""
        zeros = torch.zeros_like(tokens, dtype=torch.float32)
        return cls(torch.full_like(zeros, LOWEST), zeros, zeros, zeros)

    def add(self, z: Tensor, tokens: Tensor, columns: slice) -> None:
        """Add a tile of logits [m, c], which is overwritten."""
        at, inside = _columns_in_tile(tokens, columns)
        self.chosen = torch.where(inside, z.gather(1, at)[:, 0], self.chosen)
        largest = torch.maximum(self.largest, z.amax(1))
        shift, pi = self.largest - largest, z.sub_(largest[:, None]).exp()
        decay = shift.exp()
        self.spread = (self.spread + self.total * shift) * decay
        self.total = self.total * decay + pi.sum(1)
        self.spread += pi.mul_(z).sum(1)
        self.largest = largest


class _TiledLogprobs(torch.autograd.Function):
    """log pi(a) = z_a - M - log S and H = log S - U / S of logits z that are computed tile by tile, with

    d log pi(a) / d z = 1[a] - pi and d H / d z = -pi (log pi + H); the second is computed only if H has a gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, tiling: _Tiling
    ) -> tuple[Tensor, Tensor]:
        logprobs, entropy, log_norm = (torch.empty_like(tokens, dtype=torch.float32) for _ in range(3))
        for rows in tiling.row_slices(len(hidden)):
            part, part_tokens = hidden[rows], tokens[rows]
            sums = _OnlineSoftmax.empty(part_tokens)
            for columns in tiling.column_slices(len(part), len(weight)):
                raw = tiling.raw_logits(part, weight, bias, columns)
                sums.add(tiling.scaled_logits(raw, columns), part_tokens, columns)
                del raw  # before the next tile is allocated
            log_norm[rows] = sums.largest + sums.total.log()
            logprobs[rows], entropy[rows] = sums.chosen - log_norm[rows], sums.total.log() - sums.spread / sums.total
        ctx.save_for_backward(hidden, weight, bias, tokens, log_norm, entropy)
        ctx.set_materialize_grads(False)
        ctx.tiling = tiling
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_logprobs: Tensor | None, grad_entropy: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        hidden, weight, bias, tokens, log_norm, entropy = ctx.saved_tensors
        tiling, (needs_hidden, needs_weight, needs_bias, _, _) = ctx.tiling, ctx.needs_input_grad
        grad_logprobs = torch.zeros_like(log_norm) if grad_logprobs is None else grad_logprobs
        for_hidden = torch.zeros_like(hidden, dtype=torch.float32) if needs_hidden else None
        accumulates = needs_weight and _can_accumulate(weight)
        present = weight.grad if accumulates else None
        for_weight = torch.empty_like(weight) if needs_weight and present is None else present
        for_bias = torch.empty_like(bias) if needs_bias else None
        for rows in tiling.row_slices(len(hidden)):
            part = hidden[rows]
            for columns in tiling.column_slices(len(part), len(weight)):
                grad = _raw_gradient(
                    tiling,
                    tiling.raw_logits(part, weight, bias, columns),
                    tokens[rows],
                    columns,
                    log_norm[rows],
                    entropy[rows],
                    grad_logprobs[rows],
                    None if grad_entropy is None else grad_entropy[rows],
                )
                if for_hidden is not None:
                    for_hidden[rows] += tiling.linear(grad, weight[columns].T)
                if for_weight is not None:
                    first = present is None and not rows.start
                    _store(for_weight[columns], tiling.linear(grad.T, part.T), first=first)
                if for_bias is not None:
                    _store(for_bias[columns], grad.sum(0), first=not rows.start)
                del grad  # before the next tile is allocated
        if accumulates:
            weight.grad, for_weight = for_weight, None
        return None if for_hidden is None else for_hidden.to(hidden.dtype), for_weight, for_bias, None, None


def _raw_gradient(
    tiling: _Tiling,
    raw: Tensor,
    tokens: Tensor,
    columns: slice,
    log_norm: Tensor,
    entropy: Tensor,
    grad_logprobs: Tensor,
    grad_entropy: Tensor | None,
) -> Tensor:
    """The gradient of a tile of the layer output."""
    logp, pull = tiling.scaled_logits(raw, columns).sub_(log_norm[:, None]), grad_logprobs[:, None]
    factor = -pull
    if grad_entropy is not None:
        factor = (logp + entropy[:, None]).mul_(-grad_entropy[:, None]).add_(factor)
    at, inside = _columns_in_tile(tokens, columns)
    grad_logits = logp.exp_().mul_(factor).scatter_add_(1, at, pull * inside[:, None])
    return tiling.raw_gradient(grad_logits, raw, columns)


def _columns_in_tile(tokens: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
    """The column of each token in a tile [m, 1], and whether the token is in the tile [m]."""
    at, width = tokens - columns.start, columns.stop - columns.start
    return at.clamp(0, width - 1)[:, None], (at >= 0) & (at < width)


def _can_accumulate(weight: Tensor) -> bool:
    """Whether autograd would only add this gradient to weight.grad, and no hook observes it."""
    if not weight.is_leaf or weight._backward_hooks or weight._post_accumulate_grad_hooks:
        return False
    try:
        return torch._C._will_engine_execute_node(torch.autograd.graph.get_gradient_edge(weight).node)
    except RuntimeError:  # torch.autograd.grad was called
        return False


def _store(target: Tensor, part: Tensor, *, first: bool) -> None:
    """Write `part` the first time and add it afterwards, which saves filling the target with zeros."""
    if first:
        target.copy_(part)
    else:
        target.add_(part)
