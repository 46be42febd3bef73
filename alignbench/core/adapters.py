"""The adapters of one model: their names, and which of them act."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TRAINED, FROZEN, SFT, CRITIC = "default", "reference", "sft", "critic"
"""The adapter being trained; the frozen copy it started from; the SFT model's under a reward model's; the critic's."""


def is_adapted(model: Any) -> bool:
    """Whether the model carries a peft adapter."""
    return hasattr(model, "peft_config")


@contextmanager
def acting(model: Any, *names: str) -> Iterator[None]:
    """While it is open, these adapters act, one upon the other, or with no name the bare base.

    Which weights may learn is what it was, inside as afterwards: peft would freeze every adapter that does not act.
    """
    before = list(model.active_adapters)
    learning = [(p, p.requires_grad) for p in model.parameters()]
    _switch(model, list(names), learning)
    try:
        yield
    finally:
        _switch(model, before, learning)


def _switch(model: Any, names: list[str], learning: list[tuple[Any, bool]]) -> None:
    model.base_model.set_adapter(names)
    for parameter, may_learn in learning:
        parameter.requires_grad_(may_learn)
