"""Memory estimates: bytes a model needs for weights, scoring, generation and training, counted on the meta device.

The model itself runs on torch's meta device, which computes shapes and stores no numbers, and the bytes of live tensors
are counted; there is no formula per layer. The counts are what torch allocates: the reserve of an allocator and the
workspace of GPU libraries come on top.
"""

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alignbench.core.adapters import unwrap
from alignbench.kernels.chunked_lm_head import LMHead
from alignbench.kernels.logprobs import logits_per_tile, token_logprobs
from alignbench.kernels.onednn import prepackable_weights
from alignbench.models.loading import Lora, Pretrained

if TYPE_CHECKING:
    from transformers import Cache, PreTrainedConfig, PreTrainedModel

NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a 4-bit weight: 1/2, a scale of one byte for 64 weights, and 4 bytes for 256 scales."""
SAMPLING_BYTES = 12
"""Bytes per logit, beside the logit, in sampling: log-probability, probability, and its copy in blocks."""
ATTENTION_BYTES = 12
"""Bytes per attention weight in decoding: the score, the weight in fp32, and the weight in the model's dtype."""


class LiveTensorCounter(TorchDispatchMode):
    """Context manager that counts the bytes of live tensors (`now`) and their maximum (`peak`)."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        """Tensors in `known` are not counted."""
        super().__init__()
        self.sizes, self.now, self.peak = {t.untyped_storage()._cdata: 0 for t in known}, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.is_mkldnn:  # opaque, without storage
                self._count(tensor, id(tensor), tensor.numel() * tensor.itemsize)
            elif isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._count(storage, storage._cdata, storage.nbytes())
        return out

    def reset_peak(self) -> None:
        """Start a new peak at the current count."""
        self.peak = self.now

    def _count(self, owner: object, name: int, size: int) -> None:
        if name in self.sizes:
            return
        self.sizes[name] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(owner, self._free, name)

    def _free(self, name: int) -> None:
        self.now -= self.sizes.pop(name)


@dataclass(frozen=True, kw_only=True)
class MetaModel:
    """A model on the meta device, and the bytes of its real weights."""

    model: nn.Module
    device: str
    """Device of the real model: cpu or cuda."""
    weights: int
    """Bytes of the base model, in 4 bits if it is quantized."""
    adapter: int
    """Bytes of one adapter; 0 without an adapter."""
    largest_dequantized: int
    """Bytes of the largest weight dequantized for a product; 0 without quantization."""
    prepacked: int
    """Bytes of the weights that generation prepacks for oneDNN; 0 on a GPU."""

    @property
    def inner(self) -> Any:
        """The transformers model without the wrapper of its adapter."""
        return unwrap(self.model)

    @property
    def trunk(self) -> Any:
        """The part that maps tokens to hidden states."""
        return self.inner.base_model

    @property
    def trained(self) -> int:
        """Bytes of all trainable parameters."""
        return nbytes(p for p in self.model.parameters() if p.requires_grad)


def make_meta_model(
    source: Pretrained,
    *,
    texts: Sequence[str],
    device: str,
    score_head: bool = False,
    lora: Lora | None = None,
    config: "PreTrainedConfig | None" = None,
) -> MetaModel:
    """The model that `source` would load on `device` (cpu or cuda), on the meta device.

    With a head for one score if `score_head`, and with an adapter of shape `lora`. `config` replaces that of `source`;
    `texts` as in `Pretrained.load`.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind: Any
    kind, dtype = (
        AutoModelForSequenceClassification if score_head else AutoModelForCausalLM,
        source.resolve_dtype(device),
    )
    config = config or source.load_config(texts)
    if score_head:
        config.num_labels = 1
    with torch.device("meta"):
        model = kind.from_config(config, dtype=dtype, attn_implementation=_attention(source.attention))
        quantized = _quantized_weights(model) if source.quantization == "nf4" else []
        weights = nbytes(model.parameters()) - nbytes(quantized) + int(NF4 * sum(w.numel() for w in quantized))
        largest = max((w.nbytes for w in quantized), default=0)
        fp32 = prepackable_weights(model, device)
        prepacked = nbytes(w for w in fp32 if not any(w is other for other in quantized))
        if lora is None:
            return MetaModel(
                model=model, device=device, weights=weights, adapter=0, largest_dequantized=largest, prepacked=prepacked
            )
        from peft import get_peft_model

        model.requires_grad_(False)
        adapted = get_peft_model(model, lora.config())
    return MetaModel(
        model=adapted,
        device=device,
        weights=weights,
        largest_dequantized=largest,
        prepacked=prepacked,
        adapter=nbytes(p for name, p in adapted.named_parameters() if "lora_" in name),
    )


def training_memory(meta: MetaModel, *, rows: int, length: int, answer: int, passes: int = 1) -> int:
    """Peak bytes, beside the weights, of one forward and backward pass: activations, logits and gradients.

    Args:
        meta: the model.
        rows: number of sequences.
        length: tokens of each sequence.
        answer: number of last tokens with a loss; 0 has a loss on the last hidden state alone.
        passes: forward passes through the trunk; 2 with a critic that has its own trunk.
    """
    ids = torch.zeros(rows, length, dtype=torch.long, device="meta")
    with LiveTensorCounter(meta.model.parameters()) as live:
        loss = torch.zeros((), device="meta")
        for number in range(passes):
            hidden = meta.trunk(input_ids=ids, use_cache=False).last_hidden_state
            on_response = answer and number == 0
            loss = loss + (_response_loss(meta, hidden, answer) if on_response else hidden[:, -1].float().sum())
            del hidden
        loss.backward()
    for parameter in meta.model.parameters():
        parameter.grad = None
    return live.peak + meta.largest_dequantized


@torch.no_grad()
def inference_memory(meta: MetaModel, *, rows: int, length: int) -> int:
    """Peak bytes, beside the weights, of a forward pass on `rows` sequences of `length` tokens without gradient."""
    ids = torch.zeros(rows, length, dtype=torch.long, device="meta")
    with LiveTensorCounter(meta.model.parameters()) as live:
        meta.trunk(input_ids=ids, use_cache=False)
    return live.peak + meta.largest_dequantized


@dataclass(frozen=True, kw_only=True)
class GenerationMemory:
    """Bytes that generation needs beside the weights."""

    cache: int
    """KV cache of all answers when the last token is sampled."""
    work: int
    """Peak beside the cache: in prefill, or in the last step."""


@torch.no_grad()
def generation_memory(
    meta: MetaModel, *, prompts: int, group: int, prompt: int, answer: int, later: int = 0
) -> GenerationMemory:
    """Memory to generate `group` answers of `answer` tokens to each of `prompts` prompts of `prompt` tokens.

    A prompt is cached once per group, and the cache of an answer has a capacity of a power of two. `later` prompts join
    the batch while some answers of each group are still unfinished; their answers replace finished ones.
    """
    from transformers import DynamicCache

    from alignbench.generation.kv_cache import INITIAL_CAPACITY

    rows, capacity = prompts * group, INITIAL_CAPACITY
    head, config = meta.inner.get_output_embeddings().weight, meta.inner.config
    while capacity < answer:
        capacity *= 2
    with LiveTensorCounter(meta.model.parameters()) as live:
        prompt_cache = DynamicCache(config=config)
        _read(meta, prompts, prompt, prompt_cache)
        prefill = live.peak
        later_cache = DynamicCache(config=config)
        if later:
            _read(meta, later, prompt, later_cache)
        response_cache = DynamicCache(config=config)
        _read(meta, rows, capacity - 1, response_cache)
        before = live.now
        live.reset_peak()
        _read(meta, rows, 1, response_cache)
        step = live.peak - before
        cache = live.now
    attention = rows * config.get_text_config().num_attention_heads * (prompt + capacity) * ATTENTION_BYTES
    last = step + attention + rows * head.shape[0] * (head.itemsize + SAMPLING_BYTES)
    return GenerationMemory(cache=cache, work=max(prefill - cache, last) + meta.largest_dequantized)


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Total bytes of these tensors."""
    return sum(tensor.nbytes for tensor in tensors)


def _response_loss(meta: MetaModel, hidden: Tensor, answer: int) -> Tensor:
    head = LMHead(meta.inner.get_output_embeddings())
    states = hidden[:, -answer:].flatten(0, 1)
    tokens = torch.zeros(len(states), dtype=torch.long, device="meta")
    logprobs, entropy = token_logprobs(
        states,
        tokens,
        head,
        vocabulary=meta.inner.get_output_embeddings().weight.shape[0],
        temperature=1.0,
        suppressed=(),
        tile_size=logits_per_tile(meta.device),
    )
    return (logprobs + entropy).sum()


def _read(meta: MetaModel, rows: int, tokens: int, cache: "Cache") -> None:
    ids = torch.zeros(rows, tokens, dtype=torch.long, device="meta")
    meta.trunk(input_ids=ids, past_key_values=cache, use_cache=True)


def _attention(configured: str) -> str:
    """Register attention functions for the meta device; with them transformers makes no mask, which needs numbers."""
    from transformers import AttentionInterface

    for name, attend in (("shapes_fused", _fused), ("shapes_eager", _eager)):
        AttentionInterface.register(name, attend)
    return "shapes_eager" if configured == "eager" else "shapes_fused"


class _Fused(torch.autograd.Function):
    """Fused attention: saves queries, keys, values, the output and the log-normalizer for the backward pass."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:3], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def _fused(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: object, **_: object
) -> tuple[Tensor, None]:
    if query.shape[2] > 1 and not torch.is_grad_enabled():  # prompts of a batch are padded, so there is a mask
        key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], 1) for part in (key, value))
        query.new_empty(len(query), 1, query.shape[2], key.shape[2])
    return _Fused.apply(query, key, value).transpose(1, 2).contiguous(), None


def _eager(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: object, **_: object
) -> tuple[Tensor, None]:
    key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], 1) for part in (key, value))
    weights = (query @ key.transpose(2, 3) * 1.0).softmax(-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), None


def _quantized_weights(model: "PreTrainedModel") -> list[Tensor]:
    """The weights that bitsandbytes stores in 4 bits: those of every linear layer except the head."""
    heads = (model.get_output_embeddings(), getattr(model, "score", None))
    return [
        layer.weight
        for layer in model.modules()
        if isinstance(layer, nn.Linear) and not any(layer is head for head in heads)
    ]
