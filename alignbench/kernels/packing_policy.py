"""Whether to pack sequences into one row: the model must support it, and it must save computation."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alignbench.core.batches import Sequences, sequences
from alignbench.kernels.sequence_packing import ModelInput, pack_sequences, pad_sequences, response_input_lengths

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ReadHidden = Callable[[ModelInput], Tensor]
"""Model input -> the last hidden state of each position, [r, l, h], on the CPU."""
UNSUPPORTED = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""What models of transformers raise if they do not support such positions or attention."""
MAX_TOKEN_SHARE = 0.9
"""A packed row is used if it has at most this share of the padded rows' tokens: gathering its columns costs more."""


@dataclass(frozen=True, kw_only=True)
class PackingPolicy:
    """How the sequences of a batch are arranged for one model; results are equal up to floating-point error."""

    supported: bool
    """Whether the model computes the same hidden states for packed sequences as for separate rows."""
    window: int | None = None
    """The size of the attention window in tokens; batches with longer sequences are not packed."""

    @classmethod
    def detect(cls, model: "PreTrainedModel", read: ReadHidden, pad: int) -> "PackingPolicy":
        """Find out what this language model supports; `read` runs its decoder."""
        config = model.config.get_text_config()
        windows = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
        embeddings: Any = model.get_input_embeddings().weight
        can = bool(model._supports_attention_backend)
        return cls(
            supported=can and packing_is_exact(read, len(embeddings), pad, exact=embeddings.dtype == torch.float32),
            window=min((size for size in windows if size), default=None),
        )

    def arrange(self, batch: Sequences, pad: int) -> ModelInput:
        """One packed row if that is supported and saves computation, else one row per sequence."""
        longest = int(batch.lengths().max())
        if not self.supported or (self.window is not None and longest > self.window):
            return pad_sequences(batch, pad)
        packed = pack_sequences(batch, pad)
        padded = len(batch) * int((batch.prompt_lengths + response_input_lengths(batch)).max())
        return packed if packed.input_ids.numel() <= MAX_TOKEN_SHARE * padded else pad_sequences(batch, pad)


@torch.no_grad()
def packing_is_exact(read: ReadHidden, vocabulary: int, pad: int, *, exact: bool) -> bool:
    """Whether two responses packed behind one prompt get the hidden states of separate rows, tried on a few tokens.

    The tolerance is relative to the error of a model that ignores the layout: 0.001 if `exact` (fp32), else 0.1.
    """
    prompt, *responses = [[token % vocabulary for token in range(first, first + 6)] for first in (2, 8, 14)]
    batch = sequences([prompt, prompt], responses, pad)
    separate, packed = pad_sequences(batch, pad), pack_sequences(batch, pad)
    try:
        found = packed.select_predictors(read(packed), batch.mask).float()
    except UNSUPPORTED:
        return False
    expected = separate.select_predictors(read(separate), batch.mask).float()
    without_layout = replace(packed, position_ids=None, layout=None)
    ignored = packed.select_predictors(read(without_layout), batch.mask).float()
    allowed = 1e-3 if exact else 0.1
    return bool((found - expected).norm() <= allowed * (ignored - expected).norm())
