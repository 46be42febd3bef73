"""Which sequences stand in one row: whether a model can read them so, and whether that is less work than each alone."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from alignbench.core.batches import Sequences, sequences
from alignbench.kernels.sequence_packing import Rows, alone, packed, read_tokens

Read = Callable[[Rows], Tensor]
"""What a model reads -> the last hidden state of each position, [r, l, h], on the CPU."""
REFUSALS = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""How models of transformers say that they take no such positions or attention."""
DENSE = 0.9
"""One row is taken when it has at most this share of the tokens of rows padded to the longest: it is looked up more."""


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """How sequences are laid out for one model. The layout never changes a number beyond rounding."""

    possible: bool
    """Whether the model gives sequences in one row what it gives each alone."""
    window: int | None = None
    """How many tokens attention looks back at most; sequences that are longer stay alone."""

    @classmethod
    def found(cls, model: Any, read: Read, pad: int) -> "Sharing":
        """What holds for this language model, which `read` reads with."""
        config = model.config.get_text_config()
        windows = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
        embeddings, can = model.get_input_embeddings().weight, bool(model._supports_attention_backend)
        return cls(
            possible=can and agrees(read, len(embeddings), pad, exact=embeddings.dtype == torch.float32),
            window=min((size for size in windows if size), default=None),
        )

    def rows(self, batch: Sequences, pad: int) -> Rows:
        """All in one row where that is less work than each alone."""
        longest = int(batch.lengths().max())
        if not self.possible or (self.window is not None and longest > self.window):
            return alone(batch, pad)
        together = packed(batch, pad)
        padded = len(batch) * int((batch.prompt_lengths + read_tokens(batch)).max())
        return together if together.ids.numel() <= DENSE * padded else alone(batch, pad)


@torch.no_grad()
def agrees(read: Read, vocabulary: int, pad: int, *, exact: bool) -> bool:
    """Whether two responses behind one prompt get what each gets alone: tried on a few tokens.

    What rounding may change is judged by how wrong a model is that overlooks who sees whom.
    """
    prompt, *responses = [[token % vocabulary for token in range(first, first + 6)] for first in (2, 8, 14)]
    batch = sequences([prompt, prompt], responses, pad)
    one, both = alone(batch, pad), packed(batch, pad)
    try:
        found = both.predicting(read(both), batch.mask).float()
    except REFUSALS:
        return False
    expected = one.predicting(read(one), batch.mask).float()
    overlooked = both.predicting(read(replace(both, positions=None, layout=None)), batch.mask).float()
    allowed = 1e-3 if exact else 0.1
    return bool((found - expected).norm() <= allowed * (overlooked - expected).norm())
