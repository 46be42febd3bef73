"""Attention of sequences that share prompts in one row: only over pairs of tokens that see each other."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from alignbench.kernels.attention_switch import register_attention
from alignbench.kernels.sequence_packing import AttentionBlock, PackedLayout

PREFIX_ATTENTION = "alignbench_prefix"
"""The name by which transformers knows this attention."""


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    layout: PackedLayout,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: query [1, heads, l, d], keys and values [1, h, l, d] -> [1, l, heads, d].

    The tokens of a prompt look at it alone, once for all who answer it; those of a response at prompt and response.
    Raises ValueError for a model whose attention has sinks.
    """
    if s_aux is not None:
        raise ValueError("attention with sinks is not made for several sequences in one row")
    parts = tuple(part[0].transpose(0, 1).flatten(1) for part in (query, key, value))
    sizes = query.shape[3], key.shape[3], value.shape[3]
    seen = [
        _attend_block(*_select(parts, sizes, look), look.bias, scaling, softcap)
        .transpose(1, 2)
        .flatten(2)
        .flatten(0, 1)
        for look in layout.blocks
    ]
    return torch.cat(seen).index_select(0, layout.output_index).view(
        1, len(layout.output_index), query.shape[1], -1
    ), None


def _select(parts: tuple[Tensor, ...], sizes: tuple[int, ...], look: AttentionBlock) -> tuple[Tensor, ...]:
    """Of queries, keys and values [l, heads * d] those that take part in a look: [b, heads, t or s, d]."""
    return tuple(
        part.index_select(0, at.flatten()).view(*at.shape, -1, size).transpose(1, 2)
        for part, size, at in zip(parts, sizes, (look.query_columns, look.key_columns, look.key_columns), strict=True)
    )


def _attend_block(
    query: Tensor, key: Tensor, value: Tensor, unseen: Tensor | None, scaling: float | None, softcap: float | None
) -> Tensor:
    """What the queries see, [b, heads, t, d]; without a mask each sees those before it and itself."""
    times = query.shape[1] // key.shape[1]
    if times > 1 and (softcap is not None or query.device.type != "cpu"):  # else all pairs would be written down there
        key, value = (part.repeat_interleave(times, 1) for part in (key, value))
    if softcap is None:
        return scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=unseen,
            is_causal=unseen is None,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
    if unseen is None:
        unseen = query.new_full(query.shape[2:3] * 2, -torch.inf).triu(1)
    scores = query @ key.mT * (query.shape[3] ** -0.5 if scaling is None else scaling)
    weights = (torch.tanh(scores / softcap) * softcap + unseen).softmax(-1, dtype=torch.float32)
    return weights.to(value.dtype) @ value


register_attention(PREFIX_ATTENTION, _attend)
