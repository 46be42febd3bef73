"""The peft adapters of a model: their names, and a context manager that activates some of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TRAINED, FROZEN, SFT, CRITIC = "default", "reference", "sft", "critic"
"""Adapter names: the trained one, its frozen initial copy, the SFT model's below a reward model's, the critic's."""


def is_adapted(model: Any) -> bool:
    """Whether the model has a peft adapter."""
    return hasattr(model, "peft_config")


def unwrap(model: Any) -> Any:
    """The transformers model itself, without the wrapper of its peft adapters."""
    return model.get_base_model() if is_adapted(model) else model


@contextmanager
def use_adapters(model: Any, *names: str) -> Iterator[None]:
    """Context in which exactly these adapters are active, on top of each other; without names, only the base model.

    `requires_grad` of all parameters is preserved, inside and afterwards: peft would freeze inactive adapters.
    """
    before = list(model.active_adapters)
    trainable = [(p, p.requires_grad) for p in model.parameters()]
    _switch(model, list(names), trainable)
    try:
        yield
    finally:
        _switch(model, before, trainable)


def _switch(model: Any, names: list[str], trainable: list[tuple[Any, bool]]) -> None:
    model.base_model.set_adapter(names)
    for parameter, requires_grad in trainable:
        parameter.requires_grad_(requires_grad)
