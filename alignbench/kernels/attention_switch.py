"""By which function a model attends, for as long as it is to attend by another than its own."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

_OWN: dict[str, Callable[..., Any]] = {}
"""Our own attention functions by the names under which transformers knows them."""
_excluded = False


def register_attention(name: str, attend: Callable[..., Any]) -> None:
    """Make an attention function known to transformers; compiled models call it as it is once they are compiled."""
    import torch
    from transformers import AttentionInterface

    _OWN[name] = attend
    AttentionInterface.register(name, torch.compiler.disable(attend) if _excluded else attend)


def exclude_from_compilation() -> None:
    """Keep torch.compile out of our attention functions: their shapes change with every token."""
    global _excluded
    _excluded = True
    for name, attend in _OWN.items():
        register_attention(name, attend)


@contextmanager
def use_attention(config: Any, name: str) -> Iterator[None]:
    """While it is open, the model attends by the function of that name."""
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def attention_for(config: Any, inputs: Mapping[str, Any]) -> AbstractContextManager[None]:
    """While it is open, the model of this config reads these inputs right, be they several sequences in one row."""
    if "layout" not in inputs:
        return nullcontext()
    from alignbench.kernels.prefix_attention import PREFIX_ATTENTION  # here, because it imports transformers

    return use_attention(config, PREFIX_ATTENTION)
