"""Attention over a packed row of sequences that share prompts, computed only for query-key pairs that are visible."""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from alignbench.kernels.attention_switch import register_attention
from alignbench.kernels.sequence_packing import PackedLayout

PREFIX_ATTENTION = "alignbench_prefix"
"""The name under which this attention is registered with transformers."""


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    layout: PackedLayout,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """The attention interface of transformers: query [1, heads, l, d], key and value [1, h, l, d] -> [1, l, heads, d].

    A prompt attends to itself once for all its responses; a response attends to its prompt and itself.

    Raises:
        ValueError: the attention of the model has sinks.
    """
    if s_aux is not None:
        raise ValueError("attention with sinks does not support several sequences in one row")
    outputs = []
    for block in layout.blocks:
        attended = _attend_block(
            _select(query, block.query_columns),
            _select(key, block.key_columns),
            _select(value, block.key_columns),
            block.bias,
            scaling,
            softcap,
        )
        outputs.append(attended.transpose(1, 2).flatten(2).flatten(0, 1))
    index = layout.output_index
    return torch.cat(outputs).index_select(0, index).view(1, len(index), query.shape[1], -1), None


def _select(states: Tensor, columns: Tensor) -> Tensor:
    """Select from states [1, heads, l, d] the columns [b, t]: [b, heads, t, d]."""
    by_column = states[0].transpose(0, 1).flatten(1)
    return by_column.index_select(0, columns.flatten()).view(*columns.shape, -1, states.shape[3]).transpose(1, 2)


def _attend_block(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scaling: float | None, softcap: float | None
) -> Tensor:
    """Attention outputs [b, heads, t, d]; causal if there is no bias."""
    repeats = query.shape[1] // key.shape[1]
    # On a CPU without soft-capping, enable_gqa avoids the copies; elsewhere it would materialize all scores.
    if repeats > 1 and (softcap is not None or query.device.type != "cpu"):
        key, value = (part.repeat_interleave(repeats, 1) for part in (key, value))
    if softcap is None:
        return scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=bias,
            is_causal=bias is None,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )
    if bias is None:
        bias = query.new_full(query.shape[2:3] * 2, -torch.inf).triu(1)
    scores = query @ key.mT * (query.shape[3] ** -0.5 if scaling is None else scaling)
    weights = (torch.tanh(scores / softcap) * softcap + bias).softmax(-1, dtype=torch.float32)
    return weights.to(value.dtype) @ value


register_attention(PREFIX_ATTENTION, _attend)
