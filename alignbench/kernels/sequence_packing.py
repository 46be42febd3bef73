"""Rollouts -> rows of tokens as a model reads them: each alone, or all in one row behind the prompts they share."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignbench.core.batches import Sequences
from alignbench.kernels.onednn import row_multiple

SHORT_ROW = 512
"""Columns up to which a row is filled up to as little as large layers need; small ones then fill up more themselves."""
MAX_SPLIT_COST = 0.75
"""Responses are looked up in two parts where that leaves at most this share of the pairs of tokens to look at."""


@dataclass(frozen=True, kw_only=True)
class AttentionBlock:
    """The tokens of b sequences, at most t of each, that look at no more than s others of theirs, in one call."""

    query_columns: Tensor
    """The columns of those who look, [b, t]; behind the end of each the last again."""
    key_columns: Tensor
    """The columns of what is looked at, [b, s]; behind the end of each the last again."""
    bias: Tensor | None
    """What is added to the logits of attention, 0 or -inf, [b, 1, t, s]; None: each sees all to its left and itself."""

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> "AttentionBlock":
        """The same on another device, what is added in this dtype."""
        unseen = None if self.bias is None else self.bias.to(device, dtype)
        return AttentionBlock(
            query_columns=self.query_columns.to(device), key_columns=self.key_columns.to(device), bias=unseen
        )


@dataclass(frozen=True, kw_only=True)
class PackedLayout:
    """Who stands where in one row of l tokens without gaps, and who looks at whom."""

    blocks: tuple[AttentionBlock, ...]
    """The prompts' at themselves, then the responses' at their prompts and themselves."""
    output_index: Tensor
    """Where each column is found in what is asked for, all looks flattened, one behind the other, [l]."""

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> "PackedLayout":
        """The same on another device, for hidden states of this dtype."""
        return PackedLayout(
            blocks=tuple(look.to(device, dtype) for look in self.blocks), output_index=self.output_index.to(device)
        )


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """Tokens as a model reads them, and where in them each response token is predicted."""

    input_ids: Tensor
    """Tokens [r, l], padded on the right."""
    row: Tensor
    """The row that each sequence stands in, [n]."""
    predictors: Tensor
    """The column that predicts each response token, [n, t]; outside the mask any."""
    position_ids: Tensor | None = None
    """How far each token is from where its sequence begins, [r, l]; None where that is its column."""
    layout: PackedLayout | None = None
    """Who stands where in the one row there is; None where each sequence has its own."""

    def forward_kwargs(self, dtype: torch.dtype) -> dict[str, Any]:
        """What to call a model of transformers with, whose hidden states have this dtype."""
        layout = self.layout and self.layout.to(self.input_ids.device, dtype)
        named = {"input_ids": self.input_ids, "position_ids": self.position_ids, "layout": layout}
        return {name: part for name, part in named.items() if part is not None}

    def select_predictors(self, states: Tensor, mask: Tensor) -> Tensor:
        """Of the states [r, l, h] those that predict the response tokens under the mask, [m, h]."""
        return states[self.row[:, None].expand_as(self.predictors)[mask], self.predictors[mask]]

    def to(self, device: torch.device) -> "ModelInput":
        """The same on another device."""
        parts = {name: part.to(device) for name, part in vars(self).items() if part is not None}
        return ModelInput(**parts)


def pad_sequences(batch: Sequences, pad: int, *, include_last: bool = False) -> ModelInput:
    """A row for each sequence, without a gap between prompt and response, so that neither mask nor position is needed.

    The last token of a response predicts nothing and is left out, unless rows are wanted `whole`.
    """
    lengths, kept = batch.prompt_lengths, response_input_lengths(batch, include_last)
    row, width = torch.arange(len(batch), device=lengths.device), int((lengths + kept).max())
    ids = torch.full((len(batch), width), pad, device=lengths.device)
    _write_prefixes(ids.view(-1), row * width, _left_aligned(batch.prompts, lengths), lengths)
    _write_prefixes(ids.view(-1), row * width + lengths, batch.responses, kept)
    return ModelInput(input_ids=ids, row=row, predictors=_predictors(batch, lengths - 1, lengths, width))


def pack_sequences(batch: Sequences, pad: int) -> ModelInput:
    """One row without gaps: each prompt once, then the responses. A response sees its prompt and itself.

    It counts its positions on from where its prompt ends. Behind the last, columns are filled up to as many as oneDNN
    would fill up to at each product.
    """
    prompts = torch.cat([batch.prompt_lengths[:, None], batch.prompts], 1)
    known, group = torch.unique(prompts, dim=0, return_inverse=True)
    lengths, kept = known[:, 0], response_input_lengths(batch)
    sizes = torch.cat([lengths, kept])
    starts, used = sizes.cumsum(0) - sizes, int(sizes.sum())
    first, own = starts.split([len(known), len(batch)])
    ids = torch.full((used + -used % row_multiple(used, large=used <= SHORT_ROW),), pad, device=kept.device)
    positions = torch.zeros_like(ids)
    for start, size, tokens, before in (
        (first, lengths, _left_aligned(known[:, 1:], lengths), torch.zeros_like(lengths)),
        (own, kept, batch.responses, lengths[group]),
    ):
        _write_prefixes(ids, start, tokens, size)
        _write_prefixes(positions, start, before[:, None] + torch.arange(tokens.shape[1], device=before.device), size)
    return ModelInput(
        input_ids=ids[None],
        row=torch.zeros_like(group),
        predictors=_predictors(batch, (first + lengths)[group] - 1, own, used),
        position_ids=positions[None],
        layout=_layout(len(ids), first, lengths, own, kept, group),
    )


def _layout(length: int, first: Tensor, lengths: Tensor, own: Tensor, kept: Tensor, group: Tensor) -> PackedLayout:
    """Of a row of that length, where prompts begin at `first` [g] and responses, each to that of its `group`, at `own`
    [n]; they have `lengths` [g] and `kept` [n] tokens."""
    prompts = _columns(first, lengths)
    looks, places = [AttentionBlock(query_columns=prompts, key_columns=prompts, bias=None)], [(first, lengths)]
    for rows in _split_by_length(kept, prompts.shape[1]):
        asking, of = _columns(own[rows], kept[rows]), group[rows]
        looks.append(
            AttentionBlock(
                query_columns=asking,
                key_columns=torch.cat([prompts[of], asking], 1),
                bias=_attention_bias(lengths[of], prompts.shape[1], asking.shape[1]),
            )
        )
        places.append((own[rows], kept[rows]))
    seat, asked = torch.zeros(length, dtype=group.dtype, device=group.device), 0
    for look, (start, size) in zip(looks, places, strict=True):
        seats = torch.arange(asked, asked + look.query_columns.numel(), device=group.device)
        _write_prefixes(seat, start, seats.view_as(look.query_columns), size)
        asked += len(seats)
    return PackedLayout(blocks=tuple(looks), output_index=seat)


def _columns(start: Tensor, size: Tensor) -> Tensor:
    """The columns of sequences that begin at `start` [b], [b, t]; behind the end of each the last again."""
    column = torch.arange(max(int(size.max()), 1), device=size.device)
    return start[:, None] + column.minimum((size - 1)[:, None])


def _split_by_length(kept: Tensor, prompt: int) -> tuple[Tensor, ...]:
    """Which responses, of `kept` [n] tokens, are looked up together: all, or the longer apart from the others.

    Each is filled up to the longest beside it, and behind a prompt of so many tokens each looks at all there is.
    """
    order = kept.argsort(descending=True, stable=True)
    size = kept[order].clamp(min=1)
    pairs, longer = size * (prompt + size), torch.arange(len(size), device=kept.device)
    both = longer * pairs[0] + (len(size) - longer) * pairs
    cut = int(both.argmin())
    return (order[:cut], order[cut:]) if both[cut] <= MAX_SPLIT_COST * both[0] else (order,)


def response_input_lengths(batch: Sequences, whole: bool = False) -> Tensor:
    """The response tokens of each sequence that a model has to read, [n]."""
    tokens = batch.mask.sum(1)
    return tokens if whole else (tokens - 1).clamp(min=0)


def _write_prefixes(into: Tensor, start: Tensor, values: Tensor, sizes: Tensor) -> None:
    """Of the values [n, t] the first of each, as many as its size [n], from its column on."""
    columns = torch.arange(int(sizes.max()), device=sizes.device)
    inside = columns < sizes[:, None]
    into[(start[:, None] + columns)[inside]] = values[:, : len(columns)][inside]


def _left_aligned(prompts: Tensor, lengths: Tensor) -> Tensor:
    """Prompts padded on the left [n, p], moved to begin in the first column; what stands behind them has no meaning."""
    width = prompts.shape[1]
    columns = torch.arange(width, device=lengths.device) + (width - lengths)[:, None]
    return prompts.gather(1, columns.clamp(max=width - 1))


def _attention_bias(known: Tensor, prompt: int, response: int) -> Tensor:
    """[n, 1, t, p + t]: a response sees the tokens of its prompt, of which it has `known` [n], and its own so far."""
    column = torch.arange(response, device=known.device)
    of_prompt = torch.arange(prompt, device=known.device) < known[:, None]
    sees = torch.cat(
        [of_prompt[:, None].expand(-1, response, -1), (column <= column[:, None]).expand(len(known), -1, -1)], 2
    )
    return torch.zeros(sees.shape, device=known.device).masked_fill_(~sees, -torch.inf)[:, None]


def _predictors(batch: Sequences, first: Tensor, start: Tensor, length: int) -> Tensor:
    """`first` [n], the last token of the prompt; then the response's own, which begins at `start` [n]: [n, t]."""
    columns = torch.arange(batch.mask.shape[1], device=start.device)
    at = torch.where(columns == 0, first[:, None], start[:, None] + columns - 1)
    return at.clamp(max=length - 1)
