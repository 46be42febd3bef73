"""Linear layers by oneDNN on a CPU: the same products and gradients as torch's own choice, up to rounding."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

MIN_WEIGHTS, LARGE_WEIGHTS = 1 << 14, 1 << 17
"""Weights that a layer has at least, and from when it is large: less work is done before oneDNN has begun."""
MIN_ROWS = {True: 6, False: 96}
"""The rows with which it is worth its call, of large layers and of others."""
MANY_ROWS = 1024
CACHED_PRIMITIVES = 128
"""The kernels that oneDNN keeps, half a megabyte each, unless the environment says otherwise: by itself 1,024."""


class OneDNNLinear(nn.Linear):
    """A linear layer in fp32 on a CPU. Which way it goes depends on shapes alone, so equal runs have equal bits.

    In fp32 torch itself takes MKL, which leaves half of what AVX-512 can do on processors by AMD.
    """

    prepacked: Tensor | None = None
    """The weight once more, as oneDNN reads it, while it does not change."""

    def forward(self, input: Tensor) -> Tensor:
        rows, large = input.numel() // self.in_features, self.weight.numel() >= LARGE_WEIGHTS
        if rows < MIN_ROWS[large]:
            return functional.linear(input, self.weight, self.bias)
        more = -rows % row_multiple(rows, large)
        if not more:
            return self._multiplied(input)
        filled = functional.pad(input.reshape(rows, self.in_features), (0, 0, 0, more))
        return self._multiplied(filled)[:rows].view(*input.shape[:-1], self.out_features)

    def _multiplied(self, inputs: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return linear(inputs, self.weight if self.prepacked is None else self.prepacked, self.bias)
        out: Tensor = _OneDNNLinearFunction.apply(inputs, self.weight, self.bias)
        return out


@contextmanager
def prepacked_weights(model: Any) -> Iterator[None]:
    """While it is open, weights may not change; those of large layers are laid out once, not at every product again.

    That counts where rows are few, as while tokens are written: 16 of them then take two thirds of the time.
    """
    layers = [m for m in model.modules() if isinstance(m, OneDNNLinear) and m.weight.numel() >= LARGE_WEIGHTS]
    try:
        with torch.no_grad():
            for layer in layers:
                layer.prepacked = prepack(layer.weight)
        yield
    finally:
        for layer in layers:
            layer.prepacked = None


def prepack(weight: Tensor) -> Tensor:
    """A weight [o, i] as oneDNN reads it fastest, opaque to everything else."""
    out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return out


def row_multiple(rows: int, large: bool = False) -> int:
    """Rows are filled up to a multiple of this: for each number of them oneDNN is made ready anew.

    That takes half a millisecond, and half a megabyte for as long as the process lives.
    """
    if rows > MANY_ROWS:
        return 64
    return 16 if large or rows <= MANY_ROWS // 8 else 32


class _OneDNNLinearFunction(torch.autograd.Function):
    """x W^T + b, and of it d x = g W, d W = g^T x, d b = the sum of g over rows."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return linear(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_out: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        inputs, weight = ctx.saved_tensors
        for_inputs, for_weight, for_bias = ctx.needs_input_grad
        by_out, rows = by_out.contiguous(), by_out.reshape(-1, len(weight))
        return (
            linear(by_out, weight.T) if for_inputs else None,
            linear(rows.T, inputs.reshape(-1, weight.shape[1]).T) if for_weight else None,
            rows.sum(0) if for_bias else None,
        )


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """inputs [..., i] times weight [o, i] transposed, plus bias [o], by oneDNN."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return out


def use_onednn(model: Any) -> Any:
    """The same model, its linear layers multiplied by oneDNN where that can be; names and weights stay as they are."""
    os.environ.setdefault(
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(CACHED_PRIMITIVES)
    )  # which is read at the first product
    for layer in model.modules():
        if _is_convertible(layer):
            layer.__class__ = OneDNNLinear
    return model


def use_torch_linear(model: Any) -> None:
    """Take that back: inductor makes no code for a product by oneDNN."""
    for layer in model.modules():
        if type(layer) is OneDNNLinear:
            layer.__class__ = nn.Linear


def prepackable_weights(model: Any) -> list[Tensor]:
    """The weights that `unchanging` lays out where this model is on a CPU; of shapes alone, too."""
    return [
        layer.weight for layer in model.modules() if _is_plain_linear(layer) and layer.weight.numel() >= LARGE_WEIGHTS
    ]


def _is_convertible(layer: Any) -> bool:
    return _is_plain_linear(layer) and layer.weight.device.type == "cpu" and layer.weight.numel() >= MIN_WEIGHTS


def _is_plain_linear(layer: Any) -> bool:
    """A linear layer as torch has it, and nothing that only derives from it."""
    return (
        type(layer) in (nn.Linear, OneDNNLinear)
        and torch.backends.mkldnn.is_available()
        and bool(layer.weight.dtype == torch.float32)
    )
