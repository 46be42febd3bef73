"""By which function a model attends, for as long as it is to attend by another than its own."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any


@contextmanager
def attending(config: Any, name: str) -> Iterator[None]:
    """While it is open, the model attends by the function of that name."""
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def as_laid_out(config: Any, inputs: Mapping[str, Any]) -> AbstractContextManager[None]:
    """While it is open, the model of this config reads these inputs right, be they several sequences in one row."""
    if "layout" not in inputs:
        return nullcontext()
    from alignbench.models.prefix_attention import PREFIX  # here, because it imports transformers

    return attending(config, PREFIX)
