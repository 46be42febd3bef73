"""When siblings share a row: whether a model can read them behind one prompt, and how many at a time are least work."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignbench.core.batches import Sequences, sequences
from alignbench.models.packed import Rows, alone, behind, packed, read_tokens

Read = Callable[[Mapping[str, Tensor]], Tensor]
"""The inputs of a model -> the last hidden state of each position, [r, l, h]."""
REFUSALS = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""How models of transformers say that they take no such mask or positions."""


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """How sequences are laid out for one model. The layout never changes a number beyond rounding."""

    possible: bool
    """Whether the model gives packed sequences what it gives each alone."""
    dearness: float
    """What a pair of tokens costs attention, as a share of what a token costs the layers: by multiplications."""
    window: int | None = None
    """How many tokens attention looks back at most; sequences that are longer stay alone."""

    @classmethod
    def found(cls, model: Any, read: Read, pad: int, dtype: torch.dtype) -> "Sharing":
        """What holds for this language model, which `read` reads with."""
        config, embeddings = model.config.get_text_config(), model.get_input_embeddings()
        layers = sum(p.numel() for p in model.get_decoder().parameters()) - embeddings.weight.numel()
        windows = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
        counts_columns = hasattr(config, "window_size")  # GPT-Neo: within its window, a row's columns are the positions
        return cls(
            possible=not counts_columns and agrees(read, len(embeddings.weight), pad, dtype),
            dearness=2 * config.num_hidden_layers * embeddings.embedding_dim / max(layers, 1),
            window=min((size for size in windows if size), default=None))

    def rows(self, batch: Sequences, pad: int) -> Rows:
        """Siblings together where that is less work than each alone."""
        if not self.possible or (self.window is not None and int(batch.lengths().max()) > self.window):
            return alone(batch, pad)
        row = shared_out(batch, self.dearness)
        length = torch.zeros(int(row.max()) + 1, dtype=torch.long, device=row.device)
        length = length.scatter(0, row, batch.prompt_lengths).index_add(0, row, read_tokens(batch))
        # Without a mask attention leaves out the half of the pairs that lie ahead.
        each = work(len(batch), int((batch.prompt_lengths + read_tokens(batch)).max()), self.dearness / 2)
        together = work(len(length), int(length.max()), self.dearness)
        return packed(batch, row, pad) if together < each else alone(batch, pad)


def work(rows: int, length: int, dearness: float) -> float:
    """What a batch of that shape costs, where a token costs the layers 1."""
    return rows * length * (1 + dearness * length)


def shared_out(batch: Sequences, dearness: float) -> Tensor:
    """The row of each sequence [n], counted from 0: as many siblings in one as make the least work.

    Attention goes over all pairs of tokens in a row, though siblings do not see each other. So a row of l tokens costs
    l (1 + d l), and a prompt of p tokens with T tokens of responses, shared out among m rows, costs
    m (p + T / m) (1 + d (p + T / m)): least at m = T / sqrt(p^2 + p / d).
    """
    known = torch.cat([batch.prompt_lengths[:, None], batch.prompts], dim=1)
    _, of, size = torch.unique(known, dim=0, return_inverse=True, return_counts=True)
    prompt = torch.zeros_like(size).scatter(0, of, batch.prompt_lengths)
    responses = torch.zeros_like(size).index_add(0, of, read_tokens(batch))
    rows = (responses / (prompt * (prompt + 1 / dearness)).sqrt()).round().long().clamp(min=1).minimum(size)
    number = behind(torch.ones_like(of), of)
    return (rows.cumsum(0) - rows)[of] + number * rows[of] // size[of]


@torch.no_grad()
def agrees(read: Read, vocabulary: int, pad: int, dtype: torch.dtype) -> bool:
    """Whether two responses behind one prompt get what each gets alone: tried on a few tokens.

    What rounding may change is judged by how wrong a model is that overlooks mask and positions.
    """
    prompt, *responses = [[token % vocabulary for token in range(first, first + 6)] for first in (2, 8, 14)]
    batch = sequences([prompt, prompt], responses, pad)
    one, both = alone(batch, pad), packed(batch, torch.zeros(2, dtype=torch.long), pad)
    try:
        found = both.predicting(read(both.inputs(dtype)), batch.mask).float()
    except REFUSALS:
        return False
    expected = one.predicting(read(one.inputs(dtype)), batch.mask).float()
    overlooked = both.predicting(read({"input_ids": both.ids}), batch.mask).float()
    allowed = 1e-3 if dtype == torch.float32 else 0.1
    return bool((found - expected).norm() <= allowed * (overlooked - expected).norm())
