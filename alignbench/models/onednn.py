"""Linear layers by oneDNN while nothing is learned: the same products as torch's own choice, up to rounding."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

SMALLEST = 1 << 17
"""Weights that a layer has at least: for each new number of rows oneDNN is made ready anew, a third of a millisecond in
which a smaller layer is done."""


@contextmanager
def onednn(model: Any) -> Iterator[None]:
    """While it is open, oneDNN multiplies the large linear layers of a model on a CPU; no gradient passes through them.

    In fp32 torch itself takes MKL, which leaves half of what AVX-512 can do on processors by AMD.
    """
    layers = [layer for layer in model.modules() if _fits(layer)]
    for layer in layers:
        vars(layer)["forward"] = partial(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            del vars(layer)["forward"]


def _fits(layer: Any) -> bool:
    """A linear layer as torch has it, whose forward nobody else replaced."""
    if type(layer) is not nn.Linear or "forward" in vars(layer) or not torch.backends.mkldnn.is_available():
        return False
    weight = layer.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.numel() >= SMALLEST


def _forward(layer: nn.Linear, inputs: Tensor) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, layer.weight, layer.bias, "none", [], "")
    return out
