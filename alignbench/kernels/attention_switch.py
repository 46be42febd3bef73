"""Registers our attention functions with transformers and selects which one a model uses."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_OWN: dict[str, Callable[..., Any]] = {}
"""Our attention functions by the names under which they are registered with transformers."""
_excluded = False


def register_attention(name: str, attend: Callable[..., Any]) -> None:
    """Register an attention function with transformers; torch.compile skips it after `exclude_from_compilation`."""
    import torch
    from transformers import AttentionInterface

    _OWN[name] = attend
    AttentionInterface.register(name, torch.compiler.disable(attend) if _excluded else attend)


def exclude_from_compilation() -> None:
    """Exclude our attention functions from torch.compile: their shapes change with every token."""
    global _excluded
    _excluded = True
    for name, attend in _OWN.items():
        register_attention(name, attend)


@contextmanager
def use_attention(config: "PreTrainedConfig", name: str) -> Iterator[None]:
    """Context manager: the model of this config uses the attention function registered as `name`."""
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def attention_for(config: "PreTrainedConfig", inputs: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Context manager: the attention function that `inputs` need; packed sequences come with a `layout`."""
    if "layout" not in inputs:
        return nullcontext()
    from alignbench.kernels.prefix_attention import PREFIX_ATTENTION  # imports transformers

    return use_attention(config, PREFIX_ATTENTION)
