"""Activation checkpointing: keep only the inputs of each block and recompute the block in the backward pass."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from alignbench.core.adapters import is_adapted, use_adapters
from alignbench.core.errors import UserError
from alignbench.kernels.attention_switch import use_attention

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedConfig


def checkpoint_blocks(model: nn.Module) -> None:
    """Checkpoint every transformer block of `model`, in place; gradients do not change.

    Chen et al. 2016, https://arxiv.org/abs/1604.06174. The `gradient_checkpointing_enable` of transformers works in
    train mode only; a policy stays in eval mode, since dropout must be off.

    Raises:
        UserError: transformers does not mark the blocks of this model.
    """
    blocks = find_blocks(model)
    if not blocks:
        raise UserError(
            f"hardware.activation_checkpointing=true, but transformers marks no blocks in a {type(model).__name__}: "
            "set it to false, and lower hardware.tokens_per_microbatch"
        )
    adapted: Any = model if is_adapted(model) else None
    config: Any = (adapted.get_base_model() if adapted is not None else model).config
    for block in blocks:
        block.forward = partial(_checkpointed, block.forward, adapted, config)


def find_blocks(model: nn.Module) -> list[nn.Module]:
    """The transformer blocks of a model; empty if transformers does not mark them."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]


def _checkpointed(
    forward: Callable[..., Any],
    adapted: "PeftModel | None",
    config: "PreTrainedConfig",
    *args: object,
    **kwargs: object,
) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    contexts = partial(_contexts, adapted, config)
    return checkpoint(partial(forward, **kwargs), *args, use_reentrant=False, context_fn=contexts)


def _contexts(
    adapted: "PeftModel | None", config: "PreTrainedConfig"
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Contexts of the forward pass and of the recomputation: same active adapters, same attention function."""
    names = [] if adapted is None else list(adapted.active_adapters)
    return nullcontext(), _recomputation(adapted, names, config, str(config._attn_implementation))


@contextmanager
def _recomputation(
    adapted: "PeftModel | None", names: list[str], config: "PreTrainedConfig", attention: str
) -> Iterator[None]:
    unchanged = adapted is None or list(adapted.active_adapters) == names
    with nullcontext() if unchanged else use_adapters(adapted, *names), use_attention(config, attention):
        yield
