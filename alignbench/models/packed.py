"""Rollouts -> rows of tokens as a model reads them: each alone, or all in one row behind the prompts they share."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from alignbench.core.batches import Sequences

WHOLE = 16
"""One row has a multiple of so many columns: kernels are made for a shape, and like whole blocks."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where g prompts of at most p tokens and n responses of at most t stand in one row of l tokens without gaps."""

    prompts: Tensor
    """The columns of each prompt's tokens, [g, p]; behind its end the last again."""
    responses: Tensor
    """The columns of each response's tokens, [n, t]; behind its end the last again."""
    group: Tensor
    """Which prompt each response answers, [n]."""
    seat: Tensor
    """Where each column is found when `prompts` and `responses` are flattened, one behind the other, [l]."""
    unseen: Tensor
    """What is added to the logits of attention of a response to prompt and response: 0 or -inf, [n, 1, t, p + t]."""


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
    layout: Layout | None = None
    """Who stands where in the one row there is; None where each sequence has its own."""

    def inputs(self, dtype: torch.dtype) -> dict[str, Any]:
        """What to call a model of transformers with, whose hidden states have this dtype."""
        named = {"input_ids": self.ids, "position_ids": self.positions}
        if self.layout is not None:
            named["layout"] = replace(self.layout, unseen=self.layout.unseen.to(dtype))
        return {name: part for name, part in named.items() if part is not None}

    def predicting(self, states: Tensor, mask: Tensor) -> Tensor:
        """Of the states [r, l, h] those that predict the response tokens under the mask, [m, h]."""
        return states[self.row[:, None].expand_as(self.at)[mask], self.at[mask]]

    def to(self, device: torch.device) -> "Rows":
        """The same on another device."""
        layout = self.layout and Layout(**_moved(self.layout, device))
        return Rows(**_moved(self, device) | {"layout": layout})


def alone(batch: Sequences, pad: int, *, whole: bool = False) -> Rows:
    """A row for each sequence, without a gap between prompt and response, so that neither mask nor position is needed.

    The last token of a response predicts nothing and is left out, unless rows are wanted `whole`.
    """
    lengths, kept = batch.prompt_lengths, read_tokens(batch, whole)
    row = torch.arange(len(batch), device=lengths.device)
    ids = torch.full((len(batch), int((lengths + kept).max())), pad, device=lengths.device)
    _write(ids, row, torch.zeros_like(lengths), _begun(batch.prompts, lengths), lengths)
    _write(ids, row, lengths, batch.responses, kept)
    return Rows(ids=ids, row=row, at=_predictors(batch, lengths - 1, lengths, ids.shape[1]))


def packed(batch: Sequences, pad: int) -> Rows:
    """One row without gaps: each prompt once, then the responses. A response sees its prompt and itself.

    It counts its positions on from where its prompt ends.
    """
    prompts = torch.cat([batch.prompt_lengths[:, None], batch.prompts], 1)
    known, group = torch.unique(prompts, dim=0, return_inverse=True)
    lengths, kept = known[:, 0], read_tokens(batch)
    sizes = torch.cat([lengths, kept])
    starts, used = sizes.cumsum(0) - sizes, int(sizes.sum())
    ids = torch.full((1, used + -used % WHOLE), pad, device=kept.device)
    positions, seat = torch.zeros_like(ids), torch.zeros_like(ids)
    places, seated = list[Tensor](), 0
    for start, size, tokens, before in (
        (starts[: len(known)], lengths, _begun(known[:, 1:], lengths), torch.zeros_like(lengths)),
        (starts[len(known):], kept, batch.responses, lengths[group]),
    ):
        row, column = torch.zeros_like(start), torch.arange(max(int(size.max()), 1), device=size.device)
        seats = torch.arange(seated, seated + len(size) * len(column), device=size.device).view(len(size), -1)
        for into, values in ((ids, tokens), (positions, before[:, None] + column), (seat, seats)):
            _write(into, row, start, values, size)
        places.append((start[:, None] + column.minimum((size - 1)[:, None])).clamp(0, used - 1))
        seated += seats.numel()
    layout = Layout(prompts=places[0], responses=places[1], group=group, seat=seat[0],
                    unseen=_unseen(lengths[group], *(place.shape[1] for place in places)))
    at = _predictors(batch, (starts[: len(known)] + lengths)[group] - 1, starts[len(known):], used)
    return Rows(ids=ids, row=torch.zeros_like(group), at=at, positions=positions, layout=layout)


def read_tokens(batch: Sequences, whole: bool = False) -> Tensor:
    """The response tokens of each sequence that a model has to read, [n]."""
    tokens = batch.mask.sum(1)
    return tokens if whole else (tokens - 1).clamp(min=0)


def _write(into: Tensor, row: Tensor, start: Tensor, values: Tensor, sizes: Tensor) -> None:
    """The first of the values [n, t] of each, as many as its size, from its column on in its row."""
    columns = torch.arange(int(sizes.max()), device=sizes.device)
    inside = columns < sizes[:, None]
    place = row[:, None].expand_as(inside)[inside], (start[:, None] + columns)[inside]
    into[place] = values[:, : len(columns)][inside]


def _begun(prompts: Tensor, lengths: Tensor) -> Tensor:
    """Prompts padded on the left [n, p], moved to begin in the first column; what stands behind them has no meaning."""
    width = prompts.shape[1]
    columns = torch.arange(width, device=lengths.device) + (width - lengths)[:, None]
    return prompts.gather(1, columns.clamp(max=width - 1))


def _unseen(known: Tensor, prompt: int, response: int) -> Tensor:
    """[n, 1, t, p + t]: a response sees the tokens of its prompt, of which it has `known` [n], and its own so far."""
    column = torch.arange(response, device=known.device)
    of_prompt = torch.arange(prompt, device=known.device) < known[:, None]
    sees = torch.cat([of_prompt[:, None].expand(-1, response, -1),
                      (column <= column[:, None]).expand(len(known), -1, -1)], 2)
    return torch.zeros(sees.shape, device=known.device).masked_fill_(~sees, -torch.inf)[:, None]


def _predictors(batch: Sequences, first: Tensor, start: Tensor, length: int) -> Tensor:
    """`first` [n], the last token of the prompt; then the response's own, which begins at `start` [n]: [n, t]."""
    columns = torch.arange(batch.mask.shape[1], device=start.device)
    at = torch.where(columns == 0, first[:, None], start[:, None] + columns - 1)
    return at.clamp(max=length - 1)


def _moved(parts: Any, device: torch.device) -> dict[str, Tensor]:
    return {name: part.to(device) for name, part in vars(parts).items() if isinstance(part, Tensor)}
