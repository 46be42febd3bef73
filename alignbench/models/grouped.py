"""Decoding in groups: a prompt is remembered once for all its answers, written in place."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import AttentionInterface, Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer

from alignbench.core.batches import Prompts
from alignbench.models.decoding import Decoding, Plain, is_prompt, read
from alignbench.models.policy import CausalPolicy

GROUPED = "alignbench_grouped"
"""The name by which transformers knows our attention."""
ROOM = 32
"""Tokens of an answer that a cache has room for at first; it doubles as they are needed."""


def decoding(policy: CausalPolicy, prompts: Prompts, group_size: int, room: int) -> Decoding:
    """The faster way where it can be gone with this model and these lengths, else the one that any model goes."""
    grouped = can_group(policy, prompts.tokens.shape[1] + room)
    return (Grouped if grouped else Plain)(policy, prompts, group_size)


def can_group(policy: CausalPolicy, length: int) -> bool:
    """Whether each layer remembers all of `length` tokens, and our attention gives what the model's own gives."""
    def remembers(layer: Any) -> bool:
        return type(layer) is DynamicLayer or (
            type(layer) is DynamicSlidingWindowLayer and layer.sliding_window >= length)

    cache = DynamicCache(config=policy.inner.config)
    return policy.inner._supports_attention_backend and all(map(remembers, cache.layers)) and _is_ours(policy)


_TRIED: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
"""What was found of each model that is still there: trying it takes as long as a few tokens of all rows."""


def _is_ours(policy: CausalPolicy) -> bool:
    """Whether our attention gives what the model's own gives; a model is tried once."""
    if policy.inner not in _TRIED:
        _TRIED[policy.inner] = _same(policy)
    return _TRIED[policy.inner]


@torch.no_grad()
def _same(policy: CausalPolicy) -> bool:
    """Our attention against the model's own on a few tokens, two rows of them, one row's prompt being padded.

    In 16 bits rounding alone is a hundredth of the largest logit; another attention is off by more than a third.
    """
    ids = torch.arange(1, 7, device=policy.device).view(2, 3) % policy.vocabulary
    tokens = torch.arange(7, 11, device=policy.device) % policy.vocabulary
    prompts = Prompts(tokens=ids, lengths=torch.tensor([3, 2]), rows=({}, {}))
    ways = [way(policy, prompts, 2) for way in (Grouped, Plain)]
    ours, theirs = ([way.begin(), way.step(tokens)][1] for way in ways)
    allowed = 1e-3 if theirs.dtype == torch.float32 else 0.05
    return bool(torch.allclose(ours.float(), theirs.float(), rtol=allowed, atol=allowed * float(theirs.abs().max())))


class Grouped:
    """Each prompt is remembered once for its whole group, and what is written is written in place.

    A step attends to a prompt as one matrix product for all rows of its group, and to each row's own tokens beside it;
    one softmax goes over both.
    """

    def __init__(self, policy: CausalPolicy, prompts: Prompts, group_size: int) -> None:
        self.policy, self.prompts, self.group_size = policy, prompts, group_size
        layers = DynamicCache(config=policy.inner.config).layers
        self.cache = Cache(layers=[Layer() for _ in layers])
        self.hidden = torch.where(is_prompt(prompts), 0.0, -torch.inf)[:, None, None].to(policy.device)
        self.positions = prompts.lengths.repeat_interleave(group_size).to(policy.device)
        self.seats: tuple[Tensor, Tensor] | None = None
        """The row in each seat of each group [g, k], an empty one showing row 0, and the seat of each row [m]; None
        while all rows sit in order."""

    def begin(self) -> Tensor:
        logits = read(self.policy, self.prompts, self.cache)
        for layer in self.cache.layers:
            layer.open(self.group_size)
        return logits.repeat_interleave(self.group_size, 0)

    def step(self, tokens: Tensor) -> Tensor:
        with attending(self.policy.inner.config, GROUPED):
            logits = self.policy.model(
                input_ids=tokens[:, None], position_ids=self.positions[:, None], past_key_values=self.cache,
                use_cache=True, logits_to_keep=1, rows=self).logits[:, -1]
        self.positions += 1
        return logits

    def keep(self, rows: Tensor) -> None:
        group = self._groups()[rows]
        names, of = torch.unique(group, return_inverse=True)
        counts = torch.bincount(of)
        seat = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[of]
        width = int(counts.max())
        flat = of * width + seat
        table = flat.new_zeros(len(names) * width).index_copy(0, flat, torch.arange(len(rows), device=rows.device))
        self.seats, self.positions = (table.view(-1, width), flat), self.positions[rows]
        self.hidden = self.hidden[names]
        for layer in self.cache.layers:
            layer.keep(rows, names)

    def _groups(self) -> Tensor:
        """Which prompt, of those left, each row answers."""
        if self.seats is None:
            return torch.arange(len(self.positions), device=self.positions.device) // self.group_size
        return self.seats[1] // self.seats[0].shape[1]

    def attend(self, layer: "Layer", query: Tensor, key: Tensor, value: Tensor, softcap: float | None) -> Tensor:
        """What the queries of each row see [m, h, r, d]; keys and values are the row's own, the layer has the prompts'.

        r queries share each of the h keys.
        """
        (_, h, r, d), (known, meant), groups = query.shape, layer.prompts(), len(self.hidden)
        asked = query.view(groups, -1, h, r, d) if self.seats is None else query[self.seats[0]]
        asked = asked.transpose(1, 2).reshape(groups, h, -1, d)
        at_prompt = self._by_row(_capped(asked @ known.mT, softcap).add_(self.hidden), r)
        at_own = _capped(query @ key.transpose(2, 3), softcap)
        weights = torch.cat([at_prompt, at_own], -1).softmax(-1, dtype=torch.float32).to(value.dtype)
        prompt, own = weights.split([known.shape[2], key.shape[2]], -1)
        prompt = prompt.view(groups, -1, h, r, known.shape[2]) if self.seats is None else prompt[self.seats[0]]
        from_prompt = prompt.transpose(1, 2).reshape(groups, h, -1, known.shape[2]) @ meant
        return self._by_row(from_prompt, r).add_(own @ value)

    def _by_row(self, of_groups: Tensor, r: int) -> Tensor:
        """[g, h, k r, x] by group -> [m, h, r, x] by row."""
        groups, h, _, x = of_groups.shape
        by_seat = of_groups.view(groups, h, -1, r, x).transpose(1, 2).reshape(-1, h, r, x)
        return by_seat if self.seats is None else by_seat[self.seats[1]]


class Layer(CacheLayerMixin):
    """Keys and values of one layer: of the prompts [g, h, p, d], and of what each row wrote so far [n, h, t, d]."""

    def __init__(self) -> None:
        super().__init__()
        self.prompt: tuple[Tensor, Tensor] | None = None
        self.own: list[Tensor] = []
        self.written = 0

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """While the prompts are read: keep theirs. After that: write a token's, and return all that was written."""
        if self.prompt is None:
            self.prompt = key_states, value_states
            return self.prompt
        if self.written == self.own[0].shape[2]:
            self.own = [torch.cat([kept, torch.empty_like(kept)], 2) for kept in self.own]
        for kept, new in zip(self.own, (key_states, value_states), strict=True):
            kept[:, :, self.written] = new[:, :, 0]
        self.written += 1
        keys, values = (kept[:, :, : self.written] for kept in self.own)
        return keys, values

    def prompts(self) -> tuple[Tensor, Tensor]:
        """The keys and values of the prompts."""
        assert self.prompt is not None, "they are read before any answer is written"
        return self.prompt

    def open(self, group_size: int) -> None:
        """Make room for the answers."""
        keys, values = self.prompts()
        groups, heads, _, _ = keys.shape
        self.own = [kept.new_empty(groups * group_size, heads, ROOM, kept.shape[3]) for kept in (keys, values)]
        if groups > 1:  # else a product would copy them all at every step, since tokens stand before heads
            keys, values = keys.mT.contiguous().mT, values.contiguous()
        self.prompt = keys, values

    def keep(self, rows: Tensor, groups: Tensor) -> None:
        """Only these rows and prompts are left."""
        keys, values = self.prompts()
        if len(groups) < len(keys):
            keys, values = keys.mT[groups].mT, values[groups]
            self.prompt = (keys, values) if len(groups) > 1 else (_as_read(keys), _as_read(values))
        for i, kept in enumerate(self.own):
            left = kept.new_empty(len(rows), *kept.shape[1:])
            left[:, :, : self.written] = kept[rows, :, : self.written]
            self.own[i] = left

    def get_seq_length(self) -> int:
        return 0 if self.prompt is None else self.prompt[0].shape[2] + self.written

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None: ...


@contextmanager
def attending(config: Any, name: str) -> Iterator[None]:
    """While it is open, the model attends by the function of that name."""
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, *, rows: Grouped,
    scaling: float | None = None, softcap: float | None = None, **_: Any
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: query [m, heads, 1, d] -> [m, 1, heads, d]."""
    n, heads, _one, d = query.shape
    scaled = (query * (d**-0.5 if scaling is None else scaling)).view(n, key.shape[1], -1, d)
    seen = rows.attend(rows.cache.layers[module.layer_idx], scaled, key, value, softcap)
    return seen.reshape(n, 1, heads, -1), None


def _as_read(kept: Tensor) -> Tensor:
    """The keys or values of a prompt alone, token by token: so a prompt that was alone from the start has them, too."""
    return kept.transpose(1, 2).contiguous().transpose(1, 2)


def _capped(scores: Tensor, cap: float | None) -> Tensor:
    return scores if cap is None else torch.tanh(scores / cap) * cap


AttentionInterface.register(GROUPED, _attend)
