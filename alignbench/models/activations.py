"""Activation checkpointing: a block keeps what went into it alone, and is computed again on the way back."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from alignbench.core.errors import UserError
from alignbench.models.adapters import acting, is_adapted
from alignbench.models.attention import attending


def checkpoint_blocks(model: Any) -> None:
    """Chen et al. 2016, https://arxiv.org/abs/1604.06174, for every block of this model: gradients stay what they are.

    transformers' own gradient_checkpointing_enable does the same while a model is in train mode; a policy is not, for
    then its dropout would act. Raises UserError for a model whose blocks transformers does not know.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    blocks = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    if not blocks:
        raise UserError(f"hardware.activation_checkpointing=true, but transformers knows no blocks in a "
                        f"{type(model).__name__}: set it to false, and take fewer rows at once "
                        "(hardware.microbatch_size)")
    for block in blocks:
        block.forward = partial(_checkpointed, block.forward, model)


def _checkpointed(forward: Callable[..., Any], model: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(partial(forward, **kwargs), *args, use_reentrant=False, context_fn=partial(_contexts, model))


def _contexts(model: Any) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What holds while a block is computed, and again on the way back: as it attends now, and adapted, it does then."""
    adapted = is_adapted(model)
    config = (model.get_base_model() if adapted else model).config
    names = list(model.active_adapters) if adapted else []
    return nullcontext(), _again(model, names, config, config._attn_implementation)


@contextmanager
def _again(model: Any, names: list[str], config: Any, attention: str) -> Iterator[None]:
    same = not is_adapted(model) or list(model.active_adapters) == names
    with nullcontext() if same else acting(model, *names), attending(config, attention):
        yield
