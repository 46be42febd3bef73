"""torch.compile for the blocks of a model: one code for all of them, whatever the rows and columns."""

from collections.abc import Callable
from functools import cache
from types import MethodType
from typing import Any

import torch

from alignbench.core.errors import UserError
from alignbench.kernels import attention_switch
from alignbench.kernels.activation_checkpointing import find_blocks
from alignbench.kernels.onednn import use_torch_linear

RECOMPILE_LIMIT = 64
"""Variants of a function that are compiled before it is run as it is: a few of each kind of pass, for each adapter."""


def compile_blocks(model: Any, backend: str = "inductor", *, include_decoding: bool = False) -> None:
    """Have every block of this model read and learn by code made for it: norms, projections, rotary embedding, MLP.

    Where it is `writing`, too, so are the steps of decoding. Attention and the cache are called from there as they are:
    how much was written changes with every token, and by which function a model attends with every phase. Names and
    weights stay, and a copy of the model is compiled as well. There are no CUDA graphs: they want the same places in
    memory at every step. Raises UserError for a model whose blocks transformers does not know.
    """
    blocks = find_blocks(model)
    if not blocks:
        raise UserError(
            f"hardware.compile=true, but transformers knows no blocks in a {type(model).__name__}: set "
            "hardware.compile=false"
        )
    _configure_compiler()
    for block in blocks:
        use_torch_linear(block)
        block.forward = MethodType(_forward(type(block).forward, backend, include_decoding), block)


def require(device: str) -> None:
    """Raise UserError where nothing can be compiled for this device: a sum is tried, which takes seconds."""
    try:
        if device == "cpu":
            from torch._inductor.cpp_builder import get_cpp_compiler

            get_cpp_compiler()  # what was compiled before would be found again without one
        torch.compile(_probe, dynamic=True)(torch.ones(8, device=device))
    except (RuntimeError, OSError, ImportError) as error:
        needed = "a C++ compiler such as g++ (CXX names another)" if device == "cpu" else "Triton and a C compiler"
        told = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(
            f"hardware.compile=true, but nothing can be compiled for {device} on this machine ({told}): "
            f"install {needed}, or set hardware.compile=false"
        ) from error


def _probe(numbers: torch.Tensor) -> torch.Tensor:
    return (numbers * numbers).sum()


@cache
def _forward(forward: Callable[..., Any], backend: str, include_decoding: bool) -> Callable[..., Any]:
    from transformers import Cache

    compiled = torch.compile(forward, dynamic=True, backend=backend)
    if include_decoding:
        return compiled

    def chosen(block: Any, *args: Any, **kwargs: Any) -> Any:
        writes = any(isinstance(given, Cache) for given in (*args, *kwargs.values()))
        return (forward if writes else compiled)(block, *args, **kwargs)

    return chosen


@cache
def _configure_compiler() -> None:
    """What compiling is to know in this process: which numbers change, and what is left as it is."""
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor
    import torch.fx.experimental._config as shapes
    from transformers import Cache

    dynamo.recompile_limit = RECOMPILE_LIMIT
    shapes.use_duck_shape = False  # two sizes that are equal today are not tomorrow
    torch.compiler.config.dynamic_sources = r".*\.layer_idx$"  # else each block would have code of its own
    inductor.fallback_random = True  # dropout loses what it loses uncompiled
    Cache.update = torch.compiler.disable(Cache.update)
    attention_switch.exclude_from_compilation()
