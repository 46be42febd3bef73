"""KV cache of one layer for shared-prefix decoding: the prompt once per group, and the response of each row."""

import torch
from torch import Tensor
from torch.nn import functional
from transformers.cache_utils import CacheLayerMixin

INITIAL_CAPACITY = 32
"""Response tokens that the cache of a row has space for at first; it doubles as needed."""


class SharedPrefixLayer(CacheLayerMixin):
    """Keys and values of one layer: of the prompts [g, h, p, d], and of the responses [n, h, t, d].

    All rows write to the same column in a step. The columns are a ring buffer: a column that no row can see any more is
    overwritten, so that there are no more columns than the longest response needs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.prompt: tuple[Tensor, Tensor] | None = None
        self.responses: list[Tensor] = []
        self.rows = self.written = self.oldest = 0
        """Number of rows; number of columns written so far; number that was written before the oldest row joined."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Prefill: store the prompts. Afterwards: write one token, and return the keys and values of the responses."""
        if self.prompt is None:
            self.prompt = key_states, value_states
            return self.prompt
        for stored, new in zip(self.responses, (key_states, value_states), strict=True):
            stored[: self.rows, :, self.written % self.capacity] = new[:, :, 0]
        self.written += 1
        keys, values = (stored[: self.rows, :, : self.written] for stored in self.responses)
        return keys, values

    @property
    def capacity(self) -> int:
        """Number of columns for response tokens."""
        return self.responses[0].shape[2]

    def ensure_capacity(self) -> None:
        """Double the columns if all are in use; column indices modulo the new capacity stay valid."""
        if self.written - self.oldest == self.capacity:
            self.responses = [torch.cat([stored[: self.rows]] * 2, 2) for stored in self.responses]

    def prompts(self) -> tuple[Tensor, Tensor]:
        """Keys and values of the prompts, [g, h, p, d] each."""
        assert self.prompt is not None, "prompts are read before responses are generated"
        return self.prompt

    def allocate(self, group_size: int) -> None:
        """Allocate columns for `group_size` responses to each prompt."""
        keys, values = self.prompts()
        groups, heads, _, _ = keys.shape
        self.rows = groups * group_size
        self.responses = [
            stored.new_empty(self.rows, heads, INITIAL_CAPACITY, stored.shape[3]) for stored in (keys, values)
        ]
        self.prompt = _contiguous_layout(keys, values)

    def select(self, rows: Tensor, groups: Tensor, oldest: int) -> None:
        """Keep only these rows and prompts; `oldest` columns had been written before the oldest of the rows joined."""
        keys, values = self.prompts()
        if len(groups) < len(keys):
            keys, values = keys.mT[groups].mT, values[groups]
            self.prompt = (keys, values) if len(groups) > 1 else (_prefill_layout(keys), _prefill_layout(values))
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]
        for stored in self.responses:
            stored[moved, :, : self.written] = stored[rows[moved], :, : self.written]
        self.rows, self.oldest = len(rows), oldest

    def add(self, prompts: tuple[Tensor, Tensor], rows: int) -> None:
        """Add prompts (keys and values), and `rows` rows that answer them."""
        keys, values = (concat_left_padded(*both) for both in zip(self.prompts(), prompts, strict=True))
        self.prompt = _contiguous_layout(keys, values)
        self.responses = [
            functional.pad(stored, (0, 0, 0, 0, 0, 0, 0, max(self.rows + rows - len(stored), 0)))
            for stored in self.responses
        ]
        for stored in self.responses:
            stored[self.rows : self.rows + rows] = 0  # uninitialized memory may contain NaN
        self.rows += rows

    def get_seq_length(self) -> int:
        return 0 if self.prompt is None else self.prompt[0].shape[2] + self.written

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None: ...


def concat_left_padded(first: Tensor, second: Tensor, fill: float = 0.0) -> Tensor:
    """Concatenate [a, h, p, d] and [b, h, q, d] along the first dimension, left-padding the shorter to the longer."""
    width = max(first.shape[2], second.shape[2])
    return torch.cat([functional.pad(part, (0, 0, width - part.shape[2], 0), value=fill) for part in (first, second)])


def _contiguous_layout(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Contiguous operands for the products of every step; after prefill, tokens come before heads in memory."""
    return (keys, values) if len(keys) == 1 else (keys.mT.contiguous().mT, values.contiguous())


def _prefill_layout(states: Tensor) -> Tensor:
    """The memory layout of a single prompt after prefill, so that results equal those of a prompt decoded alone."""
    return states.transpose(1, 2).contiguous().transpose(1, 2)
