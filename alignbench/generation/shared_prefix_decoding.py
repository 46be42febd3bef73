"""Decoding in groups: a prompt is remembered once for all its answers, written in place."""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from alignbench.core.batches import Prompts
from alignbench.generation.decoding import Decoder, StandardDecoder, prefill, prompt_attention_mask
from alignbench.generation.kv_cache import SharedPrefixLayer, concat_left_padded
from alignbench.kernels.attention_switch import register_attention, use_attention
from alignbench.models.policy import CausalPolicy

SHARED_PREFIX_ATTENTION = "alignbench_grouped"
"""The name by which transformers knows our attention."""


def make_decoder(policy: CausalPolicy, prompts: Prompts, group_size: int, length: int) -> Decoder:
    """The faster way where it can be gone with this model and texts of that length, else the one any model goes."""
    return (SharedPrefixDecoder if supports_shared_prefix(policy, length) else StandardDecoder)(
        policy, prompts, group_size
    )


def supports_shared_prefix(policy: CausalPolicy, length: int) -> bool:
    """Whether each layer remembers all of `length` tokens, and our attention gives what the model's own gives."""

    def remembers(layer: Any) -> bool:
        return type(layer) is DynamicLayer or (
            type(layer) is DynamicSlidingWindowLayer and layer.sliding_window >= length
        )

    cache = DynamicCache(config=policy.inner.config)
    return policy.inner._supports_attention_backend and all(map(remembers, cache.layers)) and _is_exact(policy)


_IS_EXACT: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
"""What was found of each model that is still there: trying it takes as long as a few tokens of all rows."""


def _is_exact(policy: CausalPolicy) -> bool:
    """Whether our attention gives what the model's own gives; a model is tried once."""
    if policy.inner not in _IS_EXACT:
        _IS_EXACT[policy.inner] = _matches_standard(policy)
    return _IS_EXACT[policy.inner]


@torch.no_grad()
def _matches_standard(policy: CausalPolicy) -> bool:
    """Our attention against the model's own on a few tokens, two rows of them, one row's prompt being padded.

    In 16 bits rounding alone is a hundredth of the largest logit; another attention is off by more than a third.
    """
    ids = torch.arange(1, 7, device=policy.device).view(2, 3) % policy.vocabulary
    tokens = torch.arange(7, 11, device=policy.device) % policy.vocabulary
    prompts = Prompts(tokens=ids, lengths=torch.tensor([3, 2]), rows=({}, {}))
    ways = [way(policy, prompts, 2) for way in (SharedPrefixDecoder, StandardDecoder)]
    ours, theirs = ([way.prefill(), way.step(tokens)][1] for way in ways)
    allowed = 1e-3 if theirs.dtype == torch.float32 else 0.05
    return bool(torch.allclose(ours.float(), theirs.float(), rtol=allowed, atol=allowed * float(theirs.abs().max())))


class SharedPrefixDecoder:
    """Each prompt is remembered once for its whole group, and what is written is written in place.

    A step attends to a prompt as one matrix product for all rows of its group, and to each row's own tokens beside it;
    one softmax goes over both. Others may come later: they write on where all are, and do not see what is before that.
    """

    def __init__(self, policy: CausalPolicy, prompts: Prompts, group_size: int) -> None:
        self.policy, self.prompts, self.group_size = policy, prompts, group_size
        layers = DynamicCache(config=policy.inner.config).layers
        self.cache = Cache(layers=[SharedPrefixLayer() for _ in layers])
        self.hidden = _hidden(prompt_attention_mask(prompts)).to(policy.device)
        self.positions = prompts.lengths.repeat_interleave(group_size).to(policy.device)
        self.seats: tuple[Tensor, Tensor] | None = None
        """The row in each seat of each group [g, k], an empty one showing row 0, and the seat of each row [m]; None
        while all rows sit in order."""
        self.came: Tensor | None = None
        """How many tokens had been written before each row came [m]; None while it is none for all."""
        self.unseen: Tensor | None = None
        """What hides from each row, in the present step, what was written before it came."""

    def prefill(self) -> Tensor:
        logits = prefill(self.policy, self.prompts, self.cache)
        for layer in self.cache.layers:
            layer.allocate(self.group_size)
        return logits.repeat_interleave(self.group_size, 0)

    def add_prompts(self, prompts: Prompts) -> Tensor:
        """Let the answers to these in as well, after those that are there; the logits of their first tokens, [n, v]."""
        cache, device, n = (
            Cache(layers=[SharedPrefixLayer() for _ in self.cache.layers]),
            self.policy.device,
            self.group_size,
        )
        logits = prefill(self.policy, prompts, cache).repeat_interleave(n, 0)
        came = torch.zeros_like(self.positions) if self.came is None else self.came
        self.came = torch.cat([came, came.new_full((len(logits),), self.cache.layers[0].written)])
        groups = torch.arange(len(self.hidden), len(self.hidden) + len(prompts), device=device).repeat_interleave(n)
        self.seats = _seats(torch.cat([self._groups(), groups]))
        self.positions = torch.cat([self.positions, prompts.lengths.repeat_interleave(n).to(device)])
        self.hidden = concat_left_padded(
            self.hidden.mT, _hidden(prompt_attention_mask(prompts)).mT.to(device), -torch.inf
        ).mT
        for layer, new in zip(self.cache.layers, cache.layers, strict=True):
            layer.add(new.prompts(), len(logits))
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        for layer in self.cache.layers:
            layer.ensure_capacity()
        if self.came is not None:
            self.unseen = _hidden(self._ages() <= self.cache.layers[0].written - self.came[:, None])
        with use_attention(self.policy.inner.config, SHARED_PREFIX_ATTENTION):
            logits = self.policy.model(
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
        group = self._groups()[rows]
        names, of = torch.unique(group, return_inverse=True)
        self.seats, self.positions, self.hidden = _seats(of), self.positions[rows], self.hidden[names]
        self.came = None if self.came is None else self.came[rows]
        since = 0 if self.came is None else int(self.came.min())
        for layer in self.cache.layers:
            layer.select(rows, names, since)

    def _ages(self) -> Tensor:
        """How many tokens ago each column was written, when this step's is."""
        layer = self.cache.layers[0]
        columns = torch.arange(min(layer.written + 1, layer.capacity), device=self.policy.device)
        return (layer.written - columns) % layer.capacity

    def _groups(self) -> Tensor:
        """Which prompt, of those left, each row answers."""
        if self.seats is None:
            return torch.arange(len(self.positions), device=self.positions.device) // self.group_size
        return self.seats[1] // self.seats[0].shape[1]

    def attend(
        self, layer: SharedPrefixLayer, query: Tensor, key: Tensor, value: Tensor, softcap: float | None
    ) -> Tensor:
        """What the queries of each row see [m, h, r, d]; keys and values are the row's own, the layer has the prompts'.

        r queries share each of the h keys.
        """
        (_, h, r, d), (known, meant), groups = query.shape, layer.prompts(), len(self.hidden)
        asked = query.view(groups, -1, h, r, d) if self.seats is None else query[self.seats[0]]
        asked = asked.transpose(1, 2).reshape(groups, h, -1, d)
        at_prompt = self._by_row(_capped(asked @ known.mT, softcap).add_(self.hidden), r)
        at_own = _capped(query @ key.transpose(2, 3), softcap)
        if self.unseen is not None:
            at_own += self.unseen
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


def _hidden(seen: Tensor) -> Tensor:
    """What is added to scores: 0 where something is seen [n, t], else -inf, [n, 1, 1, t]."""
    return torch.where(seen, 0.0, -torch.inf)[:, None, None]


def _seats(of: Tensor) -> tuple[Tensor, Tensor]:
    """The row in each seat of each group [g, k], and the seat of each row [m], from the group of each."""
    counts, rows = torch.bincount(of), of.argsort(stable=True)
    width, of = int(counts.max()), of[rows]
    taken = of * width + torch.arange(len(of), device=of.device) - (counts.cumsum(0) - counts)[of]
    table = taken.new_zeros(len(counts) * width).index_copy(0, taken, rows)
    return table.view(-1, width), torch.empty_like(taken).index_copy(0, rows, taken)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    rows: SharedPrefixDecoder,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: query [m, heads, 1, d] -> [m, 1, heads, d]."""
    n, heads, _one, d = query.shape
    scaled = (query * (d**-0.5 if scaling is None else scaling)).view(n, key.shape[1], -1, d)
    seen = rows.attend(rows.cache.layers[module.layer_idx], scaled, key, value, softcap)
    return seen.reshape(n, 1, heads, -1), None


def _capped(scores: Tensor, cap: float | None) -> Tensor:
    return scores if cap is None else torch.tanh(scores / cap) * cap


register_attention(SHARED_PREFIX_ATTENTION, _attend)
