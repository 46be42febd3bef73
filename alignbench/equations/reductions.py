"""Token weights: how the losses of tokens are averaged into one loss."""

from typing import Literal

import torch

from alignbench.core.batches import Mask, PerToken
from alignbench.core.errors import UserError

Reduction = Literal["token_mean", "sequence_mean", "sequence_sum", "fixed_length"]


def check_fixed_length(how: Reduction, length: int | None) -> None:
    """Raise UserError if fixed_length lacks its length, or if a length is set that has no effect."""
    if how == "fixed_length" and length is None:
        raise UserError("reduction=fixed_length needs fixed_length=<response limit in tokens>")
    if how != "fixed_length" and length is not None:
        raise UserError(f"fixed_length={length} has no effect with reduction={how}: set fixed_length=null")


def token_weights(mask: Mask, how: Reduction, length: int | None = None) -> PerToken:
    """The weight [n, t] of each token in the loss of one optimizer step; loss = sum(weights * losses).

        token_mean     1 / (tokens of the batch)                 every token the same: DAPO, eq. 8, arXiv 2503.14476
        sequence_mean  1 / (rows * tokens of its row)            every response the same: GRPO, eq. 3, arXiv 2402.03300
        sequence_sum   1 / rows                                  whole responses: RLOO, arXiv 2402.14740
        fixed_length   1 / (rows * length)                       no length bias: Dr. GRPO, section 3.2, arXiv 2503.20783

    Computed once from the whole minibatch, so that any split into microbatches gives the same gradient. A row without
    tokens does not count as a row. `length` is the response limit and is needed by fixed_length alone.
    """
    tokens = mask.sum(1, keepdim=True)
    rows = (tokens > 0).sum().clamp(min=1)
    if how == "token_mean":
        share = 1.0 / mask.sum().clamp(min=1)
    elif how == "sequence_mean":
        share = 1.0 / (rows * tokens.clamp(min=1))
    elif how == "sequence_sum":
        share = 1.0 / rows
    else:
        assert length is not None, "fixed_length needs the length limit"
        share = 1.0 / (rows * length)
    return torch.where(mask, share, 0.0).float()
