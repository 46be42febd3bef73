"""Linear layers by oneDNN on a CPU: the same products and gradients as torch's own choice, up to rounding."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

SMALLEST, LARGE = 1 << 14, 1 << 17
"""Weights that a layer has at least, and from when it is large: less work is done before oneDNN has begun."""
ENOUGH = {True: 6, False: 96}
"""The rows with which it is worth its call, of large layers and of others."""
MANY = 1024
KERNELS = 128
"""The kernels that oneDNN keeps, half a megabyte each, unless the environment says otherwise: by itself 1,024."""


class Linear(nn.Linear):
    """A linear layer in fp32 on a CPU. Which way it goes depends on shapes alone, so equal runs have equal bits.

    In fp32 torch itself takes MKL, which leaves half of what AVX-512 can do on processors by AMD.
    """

    laid_out: Tensor | None = None
    """The weight once more, as oneDNN reads it, while it does not change."""

    def forward(self, input: Tensor) -> Tensor:
        rows, large = input.numel() // self.in_features, self.weight.numel() >= LARGE
        if rows < ENOUGH[large]:
            return functional.linear(input, self.weight, self.bias)
        more = -rows % block(rows, large)
        if not more:
            return self._multiplied(input)
        filled = functional.pad(input.reshape(rows, self.in_features), (0, 0, 0, more))
        return self._multiplied(filled)[:rows].view(*input.shape[:-1], self.out_features)

    def _multiplied(self, inputs: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return product(inputs, self.weight if self.laid_out is None else self.laid_out, self.bias)
        out: Tensor = _Product.apply(inputs, self.weight, self.bias)
        return out


@contextmanager
def unchanging(model: Any) -> Iterator[None]:
    """While it is open, weights may not change; those of large layers are laid out once, not at every product again.

    That counts where rows are few, as while tokens are written: 16 of them then take two thirds of the time.
    """
    layers = [m for m in model.modules() if isinstance(m, Linear) and m.weight.numel() >= LARGE]
    try:
        with torch.no_grad():
            for layer in layers:
                layer.laid_out = lay_out(layer.weight)
        yield
    finally:
        for layer in layers:
            layer.laid_out = None


def lay_out(weight: Tensor) -> Tensor:
    """A weight [o, i] as oneDNN reads it fastest, opaque to everything else."""
    out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return out


def block(rows: int, large: bool = False) -> int:
    """Rows are filled up to a multiple of this: for each number of them oneDNN is made ready anew.

    That takes half a millisecond, and half a megabyte for as long as the process lives.
    """
    if rows > MANY:
        return 64
    return 16 if large or rows <= MANY // 8 else 32


class _Product(torch.autograd.Function):
    """x W^T + b, and of it d x = g W, d W = g^T x, d b = the sum of g over rows."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return product(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_out: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        inputs, weight = ctx.saved_tensors
        for_inputs, for_weight, for_bias = ctx.needs_input_grad
        by_out, rows = by_out.contiguous(), by_out.reshape(-1, len(weight))
        return (
            product(by_out, weight.T) if for_inputs else None,
            product(rows.T, inputs.reshape(-1, weight.shape[1]).T) if for_weight else None,
            rows.sum(0) if for_bias else None,
        )


def product(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """inputs [..., i] times weight [o, i] transposed, plus bias [o], by oneDNN."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return out


def by_onednn(model: Any) -> Any:
    """The same model, its linear layers multiplied by oneDNN where that can be; names and weights stay as they are."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS))  # which is read at the first product
    for layer in model.modules():
        if _fits(layer):
            layer.__class__ = Linear
    return model


def by_torch(model: Any) -> None:
    """Take that back: inductor makes no code for a product by oneDNN."""
    for layer in model.modules():
        if type(layer) is Linear:
            layer.__class__ = nn.Linear


def large_weights(model: Any) -> list[Tensor]:
    """The weights that `unchanging` lays out where this model is on a CPU; of shapes alone, too."""
    return [layer.weight for layer in model.modules() if _could(layer) and layer.weight.numel() >= LARGE]


def _fits(layer: Any) -> bool:
    return _could(layer) and layer.weight.device.type == "cpu" and layer.weight.numel() >= SMALLEST


def _could(layer: Any) -> bool:
    """A linear layer as torch has it, and nothing that only derives from it."""
    return (
        type(layer) in (nn.Linear, Linear)
        and torch.backends.mkldnn.is_available()
        and bool(layer.weight.dtype == torch.float32)
    )
