"""A linear head in tiles, some tokens by some words: neither logits nor their gradient are ever whole."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from alignbench.kernels import onednn

MASKED_LOGIT = -1e9
"""The logit of a token that is never sampled: finite, so that 0 * log 0 is 0 and not NaN."""
MIN_TILE_WIDTH, TILE_WIDTH_MULTIPLE = 512, 64
"""Words that a tile has at least where there are so many, and what their number is a multiple of."""
LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class LMHead:
    """Hidden states [m, h] -> logits [m, v]: what the layer gives, z, or cap tanh(z / cap) where there is a cap."""

    layer: Any
    cap: float | None = None

    def __call__(self, hidden: Tensor) -> Tensor:
        return self.capped(self.layer(hidden))

    def capped(self, logits: Tensor) -> Tensor:
        """None is beyond the cap."""
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap


def needs_tiling(head: object, tokens: int, tile_size: int) -> bool:
    """Whether a head that is linear and nothing more, such as an adapter, would give more logits than that.

    Those of a narrow vocabulary are few beside what the layers keep.
    """
    if not isinstance(head, LMHead) or type(head.layer) not in (nn.Linear, onednn.OneDNNLinear):
        return False
    vocabulary = len(head.layer.weight)
    return vocabulary > MIN_TILE_WIDTH and tokens * vocabulary > tile_size


def tiled_logprobs(
    hidden: Tensor, tokens: Tensor, head: LMHead, *, temperature: float, suppressed: Sequence[int], tile_size: int
) -> tuple[Tensor, Tensor]:
    """log pi of each token [m] and the entropy [m], `at_once` logits at a time, given hidden states [m, h].

    All are computed again in the backward pass, which adds to the gradient that the weight has where it can.
    """
    layer, count = head.layer, len(hidden)
    fast = isinstance(layer, onednn.OneDNNLinear) and count >= onednn.MIN_ROWS[True]
    if fast:
        more = -count % onednn.row_multiple(count, large=True)
        hidden, tokens = functional.pad(hidden, (0, 0, 0, more)), functional.pad(tokens, (0, more))
    how = _TileMath(
        head=head, temperature=temperature, suppressed=tuple(suppressed), tile_size=tile_size, by_onednn=fast
    )
    chosen, entropy = _Tiled.apply(hidden, layer.weight, layer.bias, tokens, how)
    return chosen[:count], entropy[:count]


@dataclass(frozen=True, kw_only=True)
class _TileMath:
    """What is done to each tile."""

    head: LMHead
    temperature: float
    suppressed: tuple[int, ...]
    tile_size: int
    by_onednn: bool

    def rows(self, count: int) -> Iterator[slice]:
        """The tokens of each row of tiles."""
        return _slices(count, max(self.tile_size // MIN_TILE_WIDTH, 1))

    def words(self, rows: int, vocabulary: int) -> Iterator[slice]:
        """The words of each tile of that many tokens."""
        size = self.tile_size // rows
        return _slices(vocabulary, max(size - size % TILE_WIDTH_MULTIPLE, 1))

    def raw(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, words: slice) -> Tensor:
        """A tile of what the head gives."""
        return self.product(hidden, weight[words], None if bias is None else bias[words])

    def product(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """inputs [m, i] times weight [o, i] transposed, plus bias [o]."""
        return (onednn.linear if self.by_onednn else functional.linear)(inputs, weight, bias)

    def scaled(self, raw: Tensor, words: slice) -> Tensor:
        """What the head gave -> the logits that are drawn from, fp32; in its place where it can be."""
        logits = self.head.capped(raw).float()
        if self.temperature != 1:
            logits.div_(self.temperature)
        for token in self._blocked(words):
            logits[:, token] = MASKED_LOGIT
        return logits

    def back(self, by_logits: Tensor, raw: Tensor, words: slice) -> Tensor:
        """The gradient of these logits -> that of what the head gave, in its dtype; in its place where it can be."""
        for token in self._blocked(words):
            by_logits[:, token] = 0
        if self.temperature != 1:
            by_logits.div_(self.temperature)
        if self.head.cap is not None:
            by_logits.mul_(1 - torch.tanh(raw.float() / self.head.cap).square_())
        return by_logits.to(raw.dtype)

    def _blocked(self, words: slice) -> list[int]:
        return [token - words.start for token in self.suppressed if words.start <= token < words.stop]


def _slices(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


@dataclass
class _OnlineSoftmax:
    """Over the words so far, for each token: M the largest logit, S = sum e^(z-M), U = sum (z-M) e^(z-M), and z_a.

    They are shifted where a larger logit comes: Milakov and Gimelshein 2018, https://arxiv.org/abs/1805.02867.
    """

    largest: Tensor
    total: Tensor
    spread: Tensor
    chosen: Tensor

    @classmethod
    def of_none(cls, tokens: Tensor) -> "_OnlineSoftmax":
        """Before the first word."""
        zeros = torch.zeros_like(tokens, dtype=torch.float32)
        return cls(torch.full_like(zeros, LOWEST), zeros, zeros, zeros)

    def add(self, z: Tensor, tokens: Tensor, words: slice) -> None:
        """A tile of logits, which is written over."""
        at, here = _columns_in_tile(tokens, words)
        self.chosen = torch.where(here, z.gather(1, at)[:, 0], self.chosen)
        largest = torch.maximum(self.largest, z.amax(1))
        shift, pi = self.largest - largest, z.sub_(largest[:, None]).exp()
        fade = shift.exp()
        self.spread = (self.spread + self.total * shift) * fade
        self.total = self.total * fade + pi.sum(1)
        self.spread += pi.mul_(z).sum(1)
        self.largest = largest


class _Tiled(torch.autograd.Function):
    """log pi(a) = z_a - M - log S and H = log S - U / S of logits z that are made tile by tile, of which

    d log pi(a) / d z = 1[a] - pi and d H / d z = -pi (log pi + H), which is worked out only where H is learned from.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, how: _TileMath
    ) -> tuple[Tensor, Tensor]:
        chosen, entropy, normal = (torch.empty_like(tokens, dtype=torch.float32) for _ in range(3))
        for rows in how.rows(len(hidden)):
            part, wanted = hidden[rows], tokens[rows]
            sums = _OnlineSoftmax.of_none(wanted)
            for words in how.words(len(part), len(weight)):
                sums.add(how.scaled(how.raw(part, weight, bias, words), words), wanted, words)
            normal[rows] = sums.largest + sums.total.log()
            chosen[rows], entropy[rows] = sums.chosen - normal[rows], sums.total.log() - sums.spread / sums.total
        ctx.save_for_backward(hidden, weight, bias, tokens, normal, entropy)
        ctx.set_materialize_grads(False)
        ctx.how = how
        return chosen, entropy

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, by_chosen: Tensor | None, by_entropy: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        hidden, weight, bias, tokens, normal, entropy = ctx.saved_tensors
        how, (needs_hidden, needs_weight, needs_bias, _, _) = ctx.how, ctx.needs_input_grad
        by_chosen = torch.zeros_like(normal) if by_chosen is None else by_chosen
        for_hidden = torch.zeros_like(hidden, dtype=torch.float32) if needs_hidden else None
        grown = needs_weight and _can_accumulate(weight)
        held = weight.grad if grown else None
        for_weight = torch.empty_like(weight) if needs_weight and held is None else held
        for_bias = torch.empty_like(bias) if needs_bias else None
        for rows in how.rows(len(hidden)):
            part = hidden[rows]
            for words in how.words(len(part), len(weight)):
                by_raw = _raw_gradient(
                    how,
                    how.raw(part, weight, bias, words),
                    tokens[rows],
                    words,
                    normal[rows],
                    entropy[rows],
                    by_chosen[rows],
                    None if by_entropy is None else by_entropy[rows],
                )
                if for_hidden is not None:
                    for_hidden[rows] += how.product(by_raw, weight[words].T)
                if for_weight is not None:
                    _store(for_weight[words], how.product(by_raw.T, part.T), first=held is None and not rows.start)
                if for_bias is not None:
                    _store(for_bias[words], by_raw.sum(0), first=not rows.start)
                del by_raw  # before the next is made
        if grown:
            weight.grad, for_weight = for_weight, None
        return None if for_hidden is None else for_hidden.to(hidden.dtype), for_weight, for_bias, None, None


def _raw_gradient(
    how: _TileMath,
    raw: Tensor,
    tokens: Tensor,
    words: slice,
    normal: Tensor,
    entropy: Tensor,
    by_chosen: Tensor,
    by_entropy: Tensor | None,
) -> Tensor:
    """The gradient of a tile of what the head gave."""
    log, pull = how.scaled(raw, words).sub_(normal[:, None]), by_chosen[:, None]
    factor = -pull
    if by_entropy is not None:
        factor = (log + entropy[:, None]).mul_(-by_entropy[:, None]).add_(factor)
    at, here = _columns_in_tile(tokens, words)
    by_logits = log.exp_().mul_(factor).scatter_add_(1, at, pull * here[:, None])
    return how.back(by_logits, raw, words)


def _columns_in_tile(tokens: Tensor, words: slice) -> tuple[Tensor, Tensor]:
    """The column of each token [m, 1] in a tile of these words, and whether it has one [m]."""
    at, width = tokens - words.start, words.stop - words.start
    return at.clamp(0, width - 1)[:, None], (at >= 0) & (at < width)


def _can_accumulate(weight: Tensor) -> bool:
    """Whether all that would be done with its gradient now is to add it to weight.grad, with nobody looking on."""
    if not weight.is_leaf or weight._backward_hooks or weight._post_accumulate_grad_hooks:
        return False
    try:
        return torch._C._will_engine_execute_node(torch.autograd.graph.get_gradient_edge(weight).node)
    except RuntimeError:  # it is asked for by torch.autograd.grad
        return False


def _store(target: Tensor, part: Tensor, *, first: bool) -> None:
    """What is there already is only added to: to begin with zeros would take as long again."""
    if first:
        target.copy_(part)
    else:
        target.add_(part)
