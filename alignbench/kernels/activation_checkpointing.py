"""Activation checkpointing: a block keeps what went into it alone, and is computed again on the way back."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from alignbench.core.adapters import is_adapted, use_adapters
from alignbench.core.errors import UserError
from alignbench.kernels.attention_switch import use_attention


def checkpoint_blocks(model: Any) -> None:
    """Chen et al. 2016, https://arxiv.org/abs/1604.06174, for every block of this model: gradients stay what they are.

    transformers' own gradient_checkpointing_enable does the same while a model is in train mode; a policy is not, for
    then its dropout would act. Raises UserError for a model whose blocks transformers does not know.
    """
    blocks = find_blocks(model)
    if not blocks:
        raise UserError(
            f"hardware.activation_checkpointing=true, but transformers knows no blocks in a "
            f"{type(model).__name__}: set it to false, and take fewer rows at once "
            "(hardware.tokens_per_microbatch)"
        )
    adapted = model if is_adapted(model) else None
    config = (model.get_base_model() if is_adapted(model) else model).config
    for block in blocks:
        block.forward = partial(_checkpointed, block.forward, adapted, config)


def find_blocks(model: Any) -> list[Any]:
    """The blocks of a model; none where transformers does not know them."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]


def _checkpointed(forward: Callable[..., Any], adapted: Any, config: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    contexts = partial(_contexts, adapted, config)
    return checkpoint(partial(forward, **kwargs), *args, use_reentrant=False, context_fn=contexts)


def _contexts(adapted: Any, config: Any) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What holds while a block is computed, and again on the way back: how it attends and which adapters act."""
    names = [] if adapted is None else list(adapted.active_adapters)
    return nullcontext(), _again(adapted, names, config, config._attn_implementation)


@contextmanager
def _again(adapted: Any, names: list[str], config: Any, attention: str) -> Iterator[None]:
    same = adapted is None or list(adapted.active_adapters) == names
    with nullcontext() if same else use_adapters(adapted, *names), use_attention(config, attention):
        yield
