"""Shared-prefix decoding: the KV cache holds each prompt once for all its responses and is updated in place."""

from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from alignbench.core.batches import Prompts
from alignbench.generation.decoding import Decoder, StandardDecoder, prefill, prompt_attention_mask
from alignbench.generation.kv_cache import SharedPrefixLayer, concat_left_padded
from alignbench.kernels.attention_switch import register_attention, use_attention
from alignbench.models.policy import CausalPolicy

SHARED_PREFIX_ATTENTION = "alignbench_grouped"
"""The name under which this attention is registered with transformers."""


def make_decoder(policy: CausalPolicy, prompts: Prompts, group_size: int, length: int) -> Decoder:
    """A shared-prefix decoder if the model supports it for sequences of `length` tokens, else a standard decoder."""
    kind = SharedPrefixDecoder if supports_shared_prefix(policy, length) else StandardDecoder
    return kind(policy, prompts, group_size)


def supports_shared_prefix(policy: CausalPolicy, length: int) -> bool:
    """Whether each layer caches all of `length` tokens, and our attention reproduces that of the model."""

    def caches_all(layer: object) -> bool:
        return type(layer) is DynamicLayer or (
            isinstance(layer, DynamicSlidingWindowLayer)
            and type(layer) is DynamicSlidingWindowLayer
            and layer.sliding_window >= length
        )

    cache = DynamicCache(config=policy.inner.config)
    return bool(policy.inner._supports_attention_backend and all(map(caches_all, cache.layers)) and _is_exact(policy))


_IS_EXACT: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
"""Result of `_matches_standard` for each live model: the check takes as long as decoding a few tokens."""


def _is_exact(policy: CausalPolicy) -> bool:
    """Whether our attention reproduces that of the model; checked once per model."""
    if policy.inner not in _IS_EXACT:
        _IS_EXACT[policy.inner] = _matches_standard(policy)
    return _IS_EXACT[policy.inner]


@torch.no_grad()
def _matches_standard(policy: CausalPolicy) -> bool:
    """Compare our attention with that of the model on a few tokens of two prompts, one of them padded.

    In 16 bits, floating-point error alone is 1 % of the largest logit; another attention differs by more than a third.
    """
    ids = torch.arange(1, 7, device=policy.device).view(2, 3) % policy.vocabulary
    tokens = torch.arange(7, 11, device=policy.device) % policy.vocabulary
    prompts = Prompts(tokens=ids, lengths=torch.tensor([3, 2]), rows=({}, {}))
    decoders = [decoder(policy, prompts, 2) for decoder in (SharedPrefixDecoder, StandardDecoder)]
    ours, theirs = ([decoder.prefill(), decoder.step(tokens)][1] for decoder in decoders)
    allowed = 1e-3 if theirs.dtype == torch.float32 else 0.05
    return bool(torch.allclose(ours.float(), theirs.float(), rtol=allowed, atol=allowed * float(theirs.abs().max())))


class SharedPrefixDecoder:
    """Decoding in which each prompt is cached once for its group, and the cache is updated in place.

    A step attends to a prompt by one matrix product for all rows of its group, and to the tokens of each row beside it,
    with one softmax over both. Prompts can join later: all rows write to the same column, and a row does not see the
    columns written before it joined.
    """

    def __init__(self, policy: CausalPolicy, prompts: Prompts, group_size: int) -> None:
        self.policy, self.prompts, self.group_size = policy, prompts, group_size
        layers = DynamicCache(config=policy.inner.config).layers
        self.layers = [SharedPrefixLayer() for _ in layers]
        self.cache = Cache(layers=list(self.layers))
        self.prompt_bias = _attention_bias(prompt_attention_mask(prompts)).to(policy.device)
        """Added to the scores of the prompt tokens, 0 or -inf, [g, 1, 1, p]."""
        self.positions = prompts.lengths.repeat_interleave(group_size).to(policy.device)
        self.slots: tuple[Tensor, Tensor] | None = None
        """The row in each slot of each group [g, k], an empty slot naming row 0, and the slot of each row [m]; None
        while all groups are complete and in order."""
        self.joined: Tensor | None = None
        """Number of columns written before each row joined [m]; None while it is 0 for all."""
        self.response_bias: Tensor | None = None
        """Added to the scores of the response tokens in this step, -inf for columns written before the row joined."""

    def prefill(self) -> Tensor:
        logits = prefill(self.policy, self.prompts, self.cache)
        for layer in self.layers:
            layer.allocate(self.group_size)
        return logits.repeat_interleave(self.group_size, 0)

    def add_prompts(self, prompts: Prompts) -> Tensor:
        """Add the rows that answer these prompts after the others; returns the logits of their first tokens, [n, v]."""
        layers, device, n = [SharedPrefixLayer() for _ in self.layers], self.policy.device, self.group_size
        logits = prefill(self.policy, prompts, Cache(layers=list(layers))).repeat_interleave(n, 0)
        joined = torch.zeros_like(self.positions) if self.joined is None else self.joined
        self.joined = torch.cat([joined, joined.new_full((len(logits),), self.layers[0].written)])
        first = len(self.prompt_bias)
        groups = torch.arange(first, first + len(prompts), device=device).repeat_interleave(n)
        self.slots = _assign_slots(torch.cat([self._groups(), groups]))
        self.positions = torch.cat([self.positions, prompts.lengths.repeat_interleave(n).to(device)])
        bias = _attention_bias(prompt_attention_mask(prompts)).to(device)
        self.prompt_bias = concat_left_padded(self.prompt_bias.mT, bias.mT, -torch.inf).mT
        for layer, new in zip(self.layers, layers, strict=True):
            layer.add(new.prompts(), len(logits))
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        for layer in self.layers:
            layer.ensure_capacity()
        if self.joined is not None:
            self.response_bias = _attention_bias(self._ages() <= self.layers[0].written - self.joined[:, None])
        with use_attention(self.policy.inner.config, SHARED_PREFIX_ATTENTION):
            logits: Tensor = self.policy.model(
                input_ids=tokens[:, None],
                position_ids=self.positions[:, None],
                past_key_values=self.cache,
                use_cache=True,
                logits_to_keep=1,
                rows=self,
            ).logits[:, -1]
        self.positions += 1
        return logits

    def select(self, rows: Tensor) -> None:
        kept, group = torch.unique(self._groups()[rows], return_inverse=True)
        self.slots, self.positions = _assign_slots(group), self.positions[rows]
        self.prompt_bias = self.prompt_bias[kept]
        self.joined = None if self.joined is None else self.joined[rows]
        oldest = 0 if self.joined is None else int(self.joined.min())
        for layer in self.layers:
            layer.select(rows, kept, oldest)

    def _ages(self) -> Tensor:
        """Age of each column in steps, once the token of this step is written."""
        layer = self.layers[0]
        columns = torch.arange(min(layer.written + 1, layer.capacity), device=self.policy.device)
        return (layer.written - columns) % layer.capacity

    def _groups(self) -> Tensor:
        """The index of the prompt that each row answers, [m]."""
        if self.slots is None:
            return torch.arange(len(self.positions), device=self.positions.device) // self.group_size
        return self.slots[1] // self.slots[0].shape[1]

    def attend(
        self, layer: SharedPrefixLayer, query: Tensor, key: Tensor, value: Tensor, softcap: float | None
    ) -> Tensor:
        """Attention outputs [m, h, r, d] of scaled queries [m, h, r, d]; r queries share each of the h keys.

        `key` and `value` [m, h, t, d] are those of the responses; the layer has those of the prompts.
        """
        (_, h, r, d), (prompt_keys, prompt_values), groups = query.shape, layer.prompts(), len(self.prompt_bias)
        grouped = query.view(groups, -1, h, r, d) if self.slots is None else query[self.slots[0]]
        grouped = grouped.transpose(1, 2).reshape(groups, h, -1, d)
        prompt_scores = self._by_row(_softcap(grouped @ prompt_keys.mT, softcap).add_(self.prompt_bias), r)
        response_scores = _softcap(query @ key.transpose(2, 3), softcap)
        if self.response_bias is not None:
            response_scores += self.response_bias
        p, t = prompt_keys.shape[2], key.shape[2]
        weights = torch.cat([prompt_scores, response_scores], -1).softmax(-1, dtype=torch.float32).to(value.dtype)
        on_prompt, on_response = weights.split([p, t], -1)
        on_prompt = on_prompt.view(groups, -1, h, r, p) if self.slots is None else on_prompt[self.slots[0]]
        from_prompt = on_prompt.transpose(1, 2).reshape(groups, h, -1, p) @ prompt_values
        return self._by_row(from_prompt, r).add_(on_response @ value)

    def _by_row(self, by_group: Tensor, r: int) -> Tensor:
        """[g, h, k r, x] by group -> [m, h, r, x] by row."""
        groups, h, _, x = by_group.shape
        by_slot = by_group.view(groups, h, -1, r, x).transpose(1, 2).reshape(-1, h, r, x)
        return by_slot if self.slots is None else by_slot[self.slots[1]]


def _attention_bias(visible: Tensor) -> Tensor:
    """Added to attention scores: 0 where visible [n, t], else -inf, [n, 1, 1, t]."""
    return torch.where(visible, 0.0, -torch.inf)[:, None, None]


def _assign_slots(group: Tensor) -> tuple[Tensor, Tensor]:
    """From the group of each row [m]: the row in each slot of each group [g, k], and the slot of each row [m]."""
    counts, rows = torch.bincount(group), group.argsort(stable=True)
    width, group = int(counts.max()), group[rows]
    slot = group * width + torch.arange(len(group), device=group.device) - (counts.cumsum(0) - counts)[group]
    table = slot.new_zeros(len(counts) * width).index_copy(0, slot, rows)
    return table.view(-1, width), torch.empty_like(slot).index_copy(0, rows, slot)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    rows: SharedPrefixDecoder,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """The attention interface of transformers: query [m, heads, 1, d] -> [m, 1, heads, d]."""
    n, heads, _one, d = query.shape
    scaled = (query * (d**-0.5 if scaling is None else scaling)).view(n, key.shape[1], -1, d)
    layer = rows.layers[cast(Any, module).layer_idx]
    return rows.attend(layer, scaled, key, value, softcap).reshape(n, 1, heads, -1), None


def _softcap(scores: Tensor, cap: float | None) -> Tensor:
    return scores if cap is None else torch.tanh(scores / cap) * cap


register_attention(SHARED_PREFIX_ATTENTION, _attend)
