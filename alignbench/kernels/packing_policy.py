"""Which sequences stand in one row: whether a model can read them so, and whether that is less work than each alone."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from alignbench.core.batches import Sequences, sequences
from alignbench.kernels.sequence_packing import ModelInput, pack_sequences, pad_sequences, response_input_lengths

ReadHidden = Callable[[ModelInput], Tensor]
"""What a model reads -> the last hidden state of each position, [r, l, h], on the CPU."""
UNSUPPORTED = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""How models of transformers say that they take no such positions or attention."""
MAX_TOKEN_SHARE = 0.9
"""One row is taken when it has at most this share of the tokens of rows padded to the longest: it is looked up more."""


@dataclass(frozen=True, kw_only=True)
class PackingPolicy:
    """How sequences are laid out for one model. The layout never changes a number beyond rounding."""

    supported: bool
    """Whether the model gives sequences in one row what it gives each alone."""
    window: int | None = None
    """How many tokens attention looks back at most; sequences that are longer stay alone."""

    @classmethod
    def detect(cls, model: Any, read: ReadHidden, pad: int) -> "PackingPolicy":
        """What holds for this language model, which `read` reads with."""
        config = model.config.get_text_config()
        windows = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
        embeddings, can = model.get_input_embeddings().weight, bool(model._supports_attention_backend)
        return cls(
            supported=can and packing_is_exact(read, len(embeddings), pad, exact=embeddings.dtype == torch.float32),
            window=min((size for size in windows if size), default=None),
        )

    def arrange(self, batch: Sequences, pad: int) -> ModelInput:
        """All in one row where that is less work than each alone."""
        longest = int(batch.lengths().max())
        if not self.supported or (self.window is not None and longest > self.window):
            return pad_sequences(batch, pad)
        together = pack_sequences(batch, pad)
        padded = len(batch) * int((batch.prompt_lengths + response_input_lengths(batch)).max())
        return together if together.input_ids.numel() <= MAX_TOKEN_SHARE * padded else pad_sequences(batch, pad)


@torch.no_grad()
def packing_is_exact(read: ReadHidden, vocabulary: int, pad: int, *, exact: bool) -> bool:
    """Whether two responses behind one prompt get what each gets alone: tried on a few tokens.

    What rounding may change is judged by how wrong a model is that overlooks who sees whom.
    """
    prompt, *responses = [[token % vocabulary for token in range(first, first + 6)] for first in (2, 8, 14)]
    batch = sequences([prompt, prompt], responses, pad)
    one, both = pad_sequences(batch, pad), pack_sequences(batch, pad)
    try:
        found = both.select_predictors(read(both), batch.mask).float()
    except UNSUPPORTED:
        return False
    expected = one.select_predictors(read(one), batch.mask).float()
    overlooked = both.select_predictors(read(replace(both, position_ids=None, layout=None)), batch.mask).float()
    allowed = 1e-3 if exact else 0.1
    return bool((found - expected).norm() <= allowed * (overlooked - expected).norm())
