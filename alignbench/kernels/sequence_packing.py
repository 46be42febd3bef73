"""Sequences -> model input: one right-padded row per sequence, or one packed row where siblings share a prompt."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignbench.core.batches import Sequences
from alignbench.kernels.onednn import row_multiple

SHORT_ROW = 512
"""Columns up to which a packed row is padded only as large layers need; small layers then pad their own input."""
MAX_SPLIT_COST = 0.75
"""Responses are attended to in two blocks if that leaves at most this share of the query-key products."""


@dataclass(frozen=True, kw_only=True)
class AttentionBlock:
    """Attention of b sequences in one call: at most t queries each over at most s keys each."""

    query_columns: Tensor
    """Columns of the queries, [b, t]; padded by repeating the last column of each sequence."""
    key_columns: Tensor
    """Columns of the keys and values, [b, s]; padded by repeating the last column of each sequence."""
    bias: Tensor | None
    """Added to the attention scores, 0 or -inf, [b, 1, t, s]; None is causal attention."""

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> "AttentionBlock":
        """The same on another device, the bias in this dtype."""
        return AttentionBlock(
            query_columns=self.query_columns.to(device),
            key_columns=self.key_columns.to(device),
            bias=None if self.bias is None else self.bias.to(device, dtype),
        )


@dataclass(frozen=True, kw_only=True)
class PackedLayout:
    """How the sequences of one packed row of l tokens attend to each other."""

    blocks: tuple[AttentionBlock, ...]
    """Attention of the prompts to themselves, then of the responses to their prompts and themselves."""
    output_index: Tensor
    """For each column of the row, its position in the concatenated outputs of all blocks, [l]."""

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> "PackedLayout":
        """The same on another device, for hidden states of this dtype."""
        blocks = tuple(block.to(device, dtype) for block in self.blocks)
        return PackedLayout(blocks=blocks, output_index=self.output_index.to(device))


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """Rows of tokens for one forward pass, and the position that predicts each response token."""

    input_ids: Tensor
    """Tokens [r, l], right-padded."""
    row: Tensor
    """The row of each sequence, [n]."""
    predictors: Tensor
    """The column whose hidden state predicts each response token, [n, t]; arbitrary outside the mask."""
    position_ids: Tensor | None = None
    """Position of each token in its sequence, [r, l]; None if it is the column."""
    layout: PackedLayout | None = None
    """The attention of a packed row; None if each sequence has its own row."""

    def forward_kwargs(self, dtype: torch.dtype) -> dict[str, Any]:
        """Keyword arguments for the forward of a transformers model whose hidden states have this dtype."""
        layout = self.layout and self.layout.to(self.input_ids.device, dtype)
        kwargs = {"input_ids": self.input_ids, "position_ids": self.position_ids, "layout": layout}
        return {name: value for name, value in kwargs.items() if value is not None}

    def select_predictors(self, states: Tensor, mask: Tensor) -> Tensor:
        """Select from states [r, l, h] those that predict the response tokens under `mask` [n, t]: [m, h]."""
        return states[self.row[:, None].expand_as(self.predictors)[mask], self.predictors[mask]]

    def to(self, device: torch.device) -> "ModelInput":
        """The same on another device."""
        parts = {name: part.to(device) for name, part in vars(self).items() if part is not None}
        return ModelInput(**parts)


def pad_sequences(batch: Sequences, pad: int, *, include_last: bool = False) -> ModelInput:
    """One right-padded row per sequence, prompt and response adjacent: needs no attention mask and no position ids.

    The last response token predicts nothing and is left out unless `include_last`.
    """
    lengths, kept = batch.prompt_lengths, response_input_lengths(batch, include_last)
    row, width = torch.arange(len(batch), device=lengths.device), int((lengths + kept).max())
    ids = torch.full((len(batch), width), pad, device=lengths.device)
    _write_prefixes(ids.view(-1), row * width, _left_aligned(batch.prompts, lengths), lengths)
    _write_prefixes(ids.view(-1), row * width + lengths, batch.responses, kept)
    return ModelInput(input_ids=ids, row=row, predictors=_predictors(batch, lengths - 1, lengths, width))


def pack_sequences(batch: Sequences, pad: int) -> ModelInput:
    """One packed row: each distinct prompt once, then all responses; a response attends to its prompt and itself.

    Position ids of a response continue those of its prompt. The row is padded to the multiple that oneDNN's products
    need, so that no layer has to pad its input.
    """
    prompts = torch.cat([batch.prompt_lengths[:, None], batch.prompts], 1)
    distinct, group = torch.unique(prompts, dim=0, return_inverse=True)
    lengths, kept = distinct[:, 0], response_input_lengths(batch)
    sizes = torch.cat([lengths, kept])
    starts, used = sizes.cumsum(0) - sizes, int(sizes.sum())
    prompt_start, response_start = starts.split([len(distinct), len(batch)])
    padding = -used % row_multiple(used, large=used <= SHORT_ROW)
    ids = torch.full((used + padding,), pad, device=kept.device)
    positions = torch.zeros_like(ids)
    for start, size, tokens, before in (
        (prompt_start, lengths, _left_aligned(distinct[:, 1:], lengths), torch.zeros_like(lengths)),
        (response_start, kept, batch.responses, lengths[group]),
    ):
        _write_prefixes(ids, start, tokens, size)
        _write_prefixes(positions, start, before[:, None] + torch.arange(tokens.shape[1], device=before.device), size)
    return ModelInput(
        input_ids=ids[None],
        row=torch.zeros_like(group),
        predictors=_predictors(batch, (prompt_start + lengths)[group] - 1, response_start, used),
        position_ids=positions[None],
        layout=_layout(len(ids), prompt_start, lengths, response_start, kept, group),
    )


def _layout(
    length: int, prompt_start: Tensor, lengths: Tensor, response_start: Tensor, kept: Tensor, group: Tensor
) -> PackedLayout:
    """The layout of a row of `length` columns.

    Prompts begin at `prompt_start` [g] and have `lengths` [g] tokens; responses begin at `response_start` [n], have
    `kept` [n] tokens and answer the prompt `group` [n].
    """
    prompts = _columns(prompt_start, lengths)
    blocks, places = [AttentionBlock(query_columns=prompts, key_columns=prompts, bias=None)], [(prompt_start, lengths)]
    for rows in _split_by_length(kept, prompts.shape[1]):
        queries, prompt_of = _columns(response_start[rows], kept[rows]), group[rows]
        blocks.append(
            AttentionBlock(
                query_columns=queries,
                key_columns=torch.cat([prompts[prompt_of], queries], 1),
                bias=_attention_bias(lengths[prompt_of], prompts.shape[1], queries.shape[1]),
            )
        )
        places.append((response_start[rows], kept[rows]))
    output_index, offset = torch.zeros(length, dtype=group.dtype, device=group.device), 0
    for block, (start, size) in zip(blocks, places, strict=True):
        outputs = torch.arange(offset, offset + block.query_columns.numel(), device=group.device)
        _write_prefixes(output_index, start, outputs.view_as(block.query_columns), size)
        offset += len(outputs)
    return PackedLayout(blocks=tuple(blocks), output_index=output_index)


def _columns(start: Tensor, size: Tensor) -> Tensor:
    """The columns of sequences that begin at `start` [b], [b, t]; padded by repeating the last column of each."""
    column = torch.arange(max(int(size.max()), 1), device=size.device)
    return start[:, None] + column.minimum((size - 1)[:, None])


def _split_by_length(kept: Tensor, prompt: int) -> tuple[Tensor, ...]:
    """Indices of the responses (`kept` [n] tokens) of each attention block: all, or the longer and the shorter.

    In a block each response is padded to the longest, and attends to `prompt` + its padded length keys.
    """
    order = kept.argsort(descending=True, stable=True)
    size = kept[order].clamp(min=1)
    products, longer = size * (prompt + size), torch.arange(len(size), device=kept.device)
    cost = longer * products[0] + (len(size) - longer) * products
    cut = int(cost.argmin())
    return (order[:cut], order[cut:]) if cost[cut] <= MAX_SPLIT_COST * cost[0] else (order,)


def response_input_lengths(batch: Sequences, include_last: bool = False) -> Tensor:
    """Number of response tokens of each sequence that the model must read, [n]."""
    tokens = batch.mask.sum(1)
    return tokens if include_last else (tokens - 1).clamp(min=0)


def _write_prefixes(into: Tensor, start: Tensor, values: Tensor, sizes: Tensor) -> None:
    """Write the first sizes [n] of each row of values [n, t] into a flat tensor, from the column `start` [n] on."""
    columns = torch.arange(int(sizes.max()), device=sizes.device)
    inside = columns < sizes[:, None]
    into[(start[:, None] + columns)[inside]] = values[:, : len(columns)][inside]


def _left_aligned(prompts: Tensor, lengths: Tensor) -> Tensor:
    """Left-padded prompts [n, p] moved to the first column; the columns after each prompt are undefined."""
    width = prompts.shape[1]
    columns = torch.arange(width, device=lengths.device) + (width - lengths)[:, None]
    return prompts.gather(1, columns.clamp(max=width - 1))


def _attention_bias(prompt_lengths: Tensor, prompt: int, response: int) -> Tensor:
    """[n, 1, t, p + t]: a response attends to the `prompt_lengths` [n] tokens of its prompt and causally to itself."""
    column = torch.arange(response, device=prompt_lengths.device)
    in_prompt = torch.arange(prompt, device=prompt_lengths.device) < prompt_lengths[:, None]
    visible = torch.cat(
        [
            in_prompt[:, None].expand(-1, response, -1),
            (column <= column[:, None]).expand(len(prompt_lengths), -1, -1),
        ],
        2,
    )
    return torch.zeros(visible.shape, device=prompt_lengths.device).masked_fill_(~visible, -torch.inf)[:, None]


def _predictors(batch: Sequences, prompt_end: Tensor, start: Tensor, length: int) -> Tensor:
    """[n, t]: the last prompt column `prompt_end` [n] predicts the first response token, and each token the next."""
    columns = torch.arange(batch.mask.shape[1], device=start.device)
    at = torch.where(columns == 0, prompt_end[:, None], start[:, None] + columns - 1)
    return at.clamp(max=length - 1)
