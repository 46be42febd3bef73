"""torch.compile for the transformer blocks of a model, with dynamic shapes: one graph for all blocks."""

from collections.abc import Callable
from functools import cache
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from alignbench.core.errors import UserError
from alignbench.kernels import attention_switch
from alignbench.kernels.activation_checkpointing import find_blocks
from alignbench.kernels.onednn import use_torch_linear

RECOMPILE_LIMIT = 64
"""Most compiled variants of a function before it runs uncompiled: a few for each kind of pass, for each adapter."""


def compile_blocks(model: nn.Module, backend: str = "inductor", *, include_decoding: bool = False) -> None:
    """Compile every transformer block of `model`, in place: norms, projections, rotary embedding and MLP.

    With `include_decoding` the steps of decoding are compiled, too. Attention and the KV cache stay uncompiled: the
    cache length changes with every token, and the attention function with every stage. Parameter names and weights do
    not change, and a copy of the model is compiled as well. CUDA graphs are not used: they need fixed addresses.

    Raises:
        UserError: transformers does not mark the blocks of this model.
    """
    blocks = find_blocks(model)
    if not blocks:
        raise UserError(
            f"hardware.compile=true, but transformers marks no blocks in a {type(model).__name__}: set "
            "hardware.compile=false"
        )
    _configure_compiler()
    for block in blocks:
        use_torch_linear(block)
        block.forward = MethodType(_compiled_forward(type(block).forward, backend, include_decoding), block)


def require(device: str) -> None:
    """Raises UserError if torch cannot compile for `device` (cpu or cuda); compiles a sum, which takes seconds."""
    try:
        if device == "cpu":
            from torch._inductor.cpp_builder import get_cpp_compiler

            get_cpp_compiler()  # without it, cached code would hide a missing compiler
        torch.compile(_sum_of_squares, dynamic=True)(torch.ones(8, device=device))
    except (RuntimeError, OSError, ImportError) as error:
        needed = "a C++ compiler such as g++ (or set CXX)" if device == "cpu" else "Triton and a C compiler"
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(
            f"hardware.compile=true, but torch.compile fails for {device} on this machine ({reason}): "
            f"install {needed}, or set hardware.compile=false"
        ) from error


def _sum_of_squares(numbers: Tensor) -> Tensor:
    return (numbers * numbers).sum()


@cache
def _compiled_forward(forward: Callable[..., Any], backend: str, include_decoding: bool) -> Callable[..., Any]:
    from transformers import Cache

    compiled: Callable[..., Any] = torch.compile(forward, dynamic=True, backend=backend)
    if include_decoding:
        return compiled

    def dispatch(block: nn.Module, *args: object, **kwargs: object) -> Any:
        decodes = any(isinstance(value, Cache) for value in (*args, *kwargs.values()))
        return (forward if decodes else compiled)(block, *args, **kwargs)

    return dispatch


@cache
def _configure_compiler() -> None:
    """Configure torch.compile in this process: which numbers are dynamic, and which functions stay uncompiled."""
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor
    import torch.fx.experimental._config as shapes
    from transformers import Cache

    dynamo.recompile_limit = RECOMPILE_LIMIT
    shapes.use_duck_shape = False  # two sizes that are equal in one call may differ in the next
    torch.compiler.config.dynamic_sources = r".*\.layer_idx$"  # otherwise each block is compiled separately
    inductor.fallback_random = True  # dropout masks equal those of eager mode
    Cache.update = torch.compiler.disable(Cache.update)  # type: ignore[method-assign]  # on purpose, for all caches
    attention_switch.exclude_from_compilation()
