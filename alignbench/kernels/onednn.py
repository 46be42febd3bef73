"""Linear layers computed by oneDNN on a CPU: equal to torch's own up to floating-point error, and faster in fp32."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

MIN_WEIGHTS, LARGE_WEIGHTS = 1 << 14, 1 << 17
"""Least number of weights of a layer that uses oneDNN, and the number from which a layer is large."""
MIN_ROWS = {True: 6, False: 96}
"""Least number of rows for which oneDNN pays off, of large layers (True) and of others (False)."""
MANY_ROWS = 1024
CACHED_PRIMITIVES = 128
"""Compiled primitives that oneDNN caches, half a megabyte each; its own default is 1,024."""

Model = TypeVar("Model", bound=nn.Module)


class OneDNNLinear(nn.Linear):
    """An fp32 linear layer on a CPU. The path taken depends on shapes alone, so equal runs are equal bit for bit.

    In fp32 torch uses MKL, which reaches about half of the AVX-512 throughput of AMD processors.
    """

    prepacked: Tensor | None = None
    """The weight in oneDNN's blocked layout, while it is constant."""

    def forward(self, input: Tensor) -> Tensor:
        rows, large = input.numel() // self.in_features, self.weight.numel() >= LARGE_WEIGHTS
        if rows < MIN_ROWS[large]:
            return functional.linear(input, self.weight, self.bias)
        padding = -rows % row_multiple(rows, large)
        if not padding:
            return self._multiply(input)
        padded = functional.pad(input.reshape(rows, self.in_features), (0, 0, 0, padding))
        return self._multiply(padded)[:rows].view(*input.shape[:-1], self.out_features)

    def _multiply(self, inputs: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return linear(inputs, self.weight if self.prepacked is None else self.prepacked, self.bias)
        out: Tensor = _OneDNNLinearFunction.apply(inputs, self.weight, self.bias)
        return out


@contextmanager
def prepacked_weights(model: nn.Module) -> Iterator[None]:
    """Context manager: weights are constant, and large layers prepack theirs once instead of at every product.

    This matters when there are few rows, as in decoding: 16 rows take two thirds of the time.
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
    """A weight [o, i] in oneDNN's blocked layout, an opaque tensor."""
    out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return out


def row_multiple(rows: int, large: bool = False) -> int:
    """The multiple that `rows` are padded to, since oneDNN compiles one primitive for each number of rows.

    A primitive takes half a millisecond to compile and half a megabyte while it is cached.
    """
    if rows > MANY_ROWS:
        return 64
    return 16 if large or rows <= MANY_ROWS // 8 else 32


class _OneDNNLinearFunction(torch.autograd.Function):
    """x W^T + b, with gradients d x = g W, d W = g^T x, d b = sum of g over rows."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        return linear(inputs, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        inputs, weight = ctx.saved_tensors
        needs_inputs, needs_weight, needs_bias = ctx.needs_input_grad
        grad, rows = grad.contiguous(), grad.reshape(-1, len(weight))
        return (
            linear(grad, weight.T) if needs_inputs else None,
            linear(rows.T, inputs.reshape(-1, weight.shape[1]).T) if needs_weight else None,
            rows.sum(0) if needs_bias else None,
        )


def linear(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """inputs [..., i] times the transpose of weight [o, i], plus bias [o], computed by oneDNN."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return out


def use_onednn(model: Model) -> Model:
    """Make eligible linear layers of `model` use oneDNN, in place; parameter names and weights do not change."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(CACHED_PRIMITIVES))  # read at the first product
    for layer in model.modules():
        if _is_convertible(layer):
            layer.__class__ = OneDNNLinear
    return model


def use_torch_linear(model: nn.Module) -> None:
    """Undo `use_onednn`: inductor generates no code for oneDNN products."""
    for layer in model.modules():
        if type(layer) is OneDNNLinear:
            layer.__class__ = nn.Linear  # type: ignore[assignment]  # the class of a module may be replaced by its base


def prepackable_weights(model: nn.Module, device: str) -> list[Tensor]:
    """The weights that `prepacked_weights` would copy if `model` were on `device`; works on the meta device."""
    return (
        []
        if device != "cpu"
        else [
            layer.weight
            for layer in model.modules()
            if _is_plain_linear(layer) and layer.weight.numel() >= LARGE_WEIGHTS
        ]
    )


def _is_convertible(layer: nn.Module) -> bool:
    return _is_plain_linear(layer) and layer.weight.device.type == "cpu" and layer.weight.numel() >= MIN_WEIGHTS


def _is_plain_linear(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a layer is an fp32 nn.Linear, and not of a class derived from it."""
    return (
        isinstance(layer, nn.Linear)
        and type(layer) in (nn.Linear, OneDNNLinear)
        and torch.backends.mkldnn.is_available()
        and bool(layer.weight.dtype == torch.float32)
    )
