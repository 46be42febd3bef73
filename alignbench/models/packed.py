"""Rollouts -> rows of tokens as a model reads them: each alone, or siblings in one row behind the prompt they share."""

from dataclasses import dataclass

import torch
from torch import Tensor

from alignbench.core.batches import Sequences

NOBODY = -1


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Tokens as a model reads them, and where in them each response token is predicted."""

    ids: Tensor
    """Tokens [r, l], padded on the right."""
    row: Tensor
    """The row that each sequence stands in, [n]."""
    at: Tensor
    """The column that predicts each response token, [n, t]; outside the mask any."""
    positions: Tensor | None = None
    """How far each token is from where its sequence begins, [r, l]; None where that is its column."""
    sees: Tensor | None = None
    """Whether a token looks at another, [r, l, l]; None where it looks at all before it."""

    def inputs(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """What to call a model of transformers with, whose hidden states have this dtype."""
        named = {"input_ids": self.ids, "position_ids": self.positions}
        if self.sees is not None:
            # As what is added to the logits of attention: the one form that every implementation of it takes.
            closed = torch.full(self.sees.shape, torch.finfo(dtype).min, dtype=dtype, device=self.sees.device)
            named["attention_mask"] = closed.masked_fill(self.sees, 0)[:, None]
        return {name: part for name, part in named.items() if part is not None}

    def predicting(self, states: Tensor, mask: Tensor) -> Tensor:
        """Of the states [r, l, h] those that predict the response tokens under the mask, [m, h]."""
        return states[self.row[:, None].expand_as(self.at)[mask], self.at[mask]]

    def to(self, device: torch.device) -> "Rows":
        """The same on another device."""
        moved = {name: part.to(device) for name, part in vars(self).items() if part is not None}
        return Rows(**moved)


def alone(batch: Sequences, pad: int, *, whole: bool = False) -> Rows:
    """A row for each sequence, without a gap between prompt and response, so that neither mask nor position is needed.

    The last token of a response predicts nothing and is left out, unless rows are wanted `whole`.
    """
    row, kept = torch.arange(len(batch), device=batch.mask.device), read_tokens(batch, whole)
    ids, _, _ = _written(batch, row, batch.prompt_lengths, kept, pad)
    return Rows(ids=ids, row=row, at=_predictors(batch, batch.prompt_lengths, ids.shape[1]))


def packed(batch: Sequences, row: Tensor, pad: int) -> Rows:
    """One row for all sequences of the same number in `row` [n], counted from 0, whose prompts are the same.

    A response sees the prompt and itself, and counts its positions on from where the prompt ends.
    """
    kept = read_tokens(batch)
    start = batch.prompt_lengths + behind(kept, row)
    ids, owner, positions = _written(batch, row, start, kept, pad)
    mine = (owner[:, :, None] == owner[:, None]) | (owner[:, None] == 0)
    sees = mine & (positions[:, :, None] >= positions[:, None])
    return Rows(ids=ids, row=row, at=_predictors(batch, start, ids.shape[1]), positions=positions, sees=sees)


def read_tokens(batch: Sequences, whole: bool = False) -> Tensor:
    """The response tokens of each sequence that a model has to read, [n]."""
    tokens = batch.mask.sum(1)
    return tokens if whole else (tokens - 1).clamp(min=0)


def behind(tokens: Tensor, row: Tensor) -> Tensor:
    """How many tokens [n] the earlier sequences of the same row have."""
    order = row.argsort(stable=True)
    before = torch.empty_like(tokens).scatter(0, order, tokens[order].cumsum(0) - tokens[order])
    rows = int(row.max()) + 1
    first = torch.full((rows,), int(before.max()), device=row.device).scatter_reduce(0, row, before, "amin")
    return before - first[row]


def _written(
    batch: Sequences, row: Tensor, start: Tensor, kept: Tensor, pad: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens [r, l] with responses beginning at column `start` [n]; whose each is, 0 for a prompt's; its position."""
    prompts, responses, device = batch.prompts, batch.responses, row.device
    shape = int(row.max()) + 1, int((start + kept).max())
    ids = torch.full(shape, pad, device=device)
    owner, positions = torch.full(shape, NOBODY, device=device), torch.zeros(shape, dtype=torch.long, device=device)
    columns = torch.arange(prompts.shape[1], device=device) - (prompts.shape[1] - batch.prompt_lengths)[:, None]
    where, inside = row[:, None].expand_as(columns), columns >= 0
    # Siblings write the same prompt to the same place.
    place = where[inside], columns[inside]
    ids[place], owner[place], positions[place] = prompts[inside], 0, columns[inside]
    columns = torch.arange(responses.shape[1], device=device)[None].expand_as(responses)
    where, inside = row[:, None].expand_as(columns), columns < kept[:, None]
    place = where[inside], (columns + start[:, None])[inside]
    number = torch.arange(1, len(batch) + 1, device=device)[:, None].expand_as(columns)
    ids[place], owner[place] = responses[inside], number[inside]
    positions[place] = (columns + batch.prompt_lengths[:, None])[inside]
    return ids, owner, positions


def _predictors(batch: Sequences, start: Tensor, length: int) -> Tensor:
    """The last token of the prompt, then the response's own, [n, t]."""
    columns = torch.arange(batch.mask.shape[1], device=start.device)
    at = torch.where(columns == 0, batch.prompt_lengths[:, None], start[:, None] + columns) - 1
    return at.clamp(max=length - 1)
