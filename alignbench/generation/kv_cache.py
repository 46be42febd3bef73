"""Keys and values of a layer: a prompt's once for all its answers, and each answer's own."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.cache_utils import CacheLayerMixin

INITIAL_CAPACITY = 32
"""Tokens of an answer that a cache has room for at first; it doubles as they are needed."""


class SharedPrefixLayer(CacheLayerMixin):
    """Keys and values of one layer: of the prompts [g, h, p, d], and of what each row wrote so far [n, h, t, d].

    All rows write into the same column at a time. The columns are a ring: where nobody sees the first of them any more,
    they are written again, so that there are no more than the longest answer needs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.prompt: tuple[Tensor, Tensor] | None = None
        self.responses: list[Tensor] = []
        self.rows = self.written = self.since = 0
        """How many rows are left, how many tokens were written in all, and before how many of them anybody came."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """While the prompts are read: keep theirs. After that: write a token's, and return all that was written."""
        if self.prompt is None:
            self.prompt = key_states, value_states
            return self.prompt
        for kept, new in zip(self.responses, (key_states, value_states), strict=True):
            kept[: self.rows, :, self.written % self.capacity] = new[:, :, 0]
        self.written += 1
        keys, values = (kept[: self.rows, :, : self.written] for kept in self.responses)
        return keys, values

    @property
    def capacity(self) -> int:
        """How many tokens of each row there is room for."""
        return self.responses[0].shape[2]

    def ensure_capacity(self) -> None:
        """For one more: twice as many columns where all are in use, each in its place among these as among those."""
        if self.written - self.since == self.capacity:
            self.responses = [torch.cat([kept[: self.rows]] * 2, 2) for kept in self.responses]

    def prompts(self) -> tuple[Tensor, Tensor]:
        """The keys and values of the prompts."""
        assert self.prompt is not None, "they are read before any answer is written"
        return self.prompt

    def allocate(self, group_size: int) -> None:
        """Make room for the answers."""
        keys, values = self.prompts()
        groups, heads, _, _ = keys.shape
        self.rows = groups * group_size
        self.responses = [kept.new_empty(self.rows, heads, INITIAL_CAPACITY, kept.shape[3]) for kept in (keys, values)]
        self.prompt = _laid_out(keys, values)

    def select(self, rows: Tensor, groups: Tensor, since: int) -> None:
        """Only these rows and prompts are left, and none of them came before so many tokens had been written."""
        keys, values = self.prompts()
        if len(groups) < len(keys):
            keys, values = keys.mT[groups].mT, values[groups]
            self.prompt = (keys, values) if len(groups) > 1 else (_as_read(keys), _as_read(values))
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]
        for kept in self.responses:
            kept[moved, :, : self.written] = kept[rows[moved], :, : self.written]
        self.rows, self.since = len(rows), since

    def add(self, prompts: tuple[Tensor, Tensor], rows: int) -> None:
        """These prompts are there too, and that many rows that answer them."""
        keys, values = (concat_left_padded(*both) for both in zip(self.prompts(), prompts, strict=True))
        self.prompt = _laid_out(keys, values)
        self.responses = [
            functional.pad(kept, (0, 0, 0, 0, 0, 0, 0, max(self.rows + rows - len(kept), 0))) for kept in self.responses
        ]
        for kept in self.responses:
            kept[self.rows : self.rows + rows] = 0  # what was there may not even be a number
        self.rows += rows

    def get_seq_length(self) -> int:
        return 0 if self.prompt is None else self.prompt[0].shape[2] + self.written

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None: ...


def concat_left_padded(first: Tensor, second: Tensor, fill: float = 0.0) -> Tensor:
    """[a, h, p, d] and [b, h, q, d] as one, the narrower filled up on the left."""
    width = max(first.shape[2], second.shape[2])
    return torch.cat([functional.pad(part, (0, 0, width - part.shape[2], 0), value=fill) for part in (first, second)])


def _laid_out(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """So that a product need not copy them all at every step: as they are read, tokens stand before heads."""
    return (keys, values) if len(keys) == 1 else (keys.mT.contiguous().mT, values.contiguous())


def _as_read(kept: Tensor) -> Tensor:
    """The keys or values of a prompt alone, token by token: so a prompt that was alone from the start has them, too."""
    return kept.transpose(1, 2).contiguous().transpose(1, 2)
