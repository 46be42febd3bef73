"""Bytes a model takes to hold, to read, to write and to learn, counted on its shapes alone.

The model itself is run on torch's meta device, which computes shapes and holds no numbers, and the tensors that are
alive are counted: no formula for layers is needed, and none can be wrong. What is counted is what torch allocates; an
allocator's reserve and a GPU library's workspace come on top.
"""

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alignbench.core.adapters import is_adapted
from alignbench.kernels.chunked_lm_head import LMHead
from alignbench.kernels.logprobs import logits_per_tile, token_logprobs
from alignbench.kernels.onednn import prepackable_weights
from alignbench.models.loading import Lora, Pretrained

NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a weight in 4 bits: half of one, a byte of scale for 64 of them, and 4 bytes for 256 such scales."""
SAMPLING_BYTES = 12
"""Bytes beside the logits for each of them while a token is drawn: log-probability, chance, and a copy in blocks."""
ATTENTION_BYTES = 12
"""Bytes for each weight of attention while a token is written: as it is found, in fp32, and in the model's dtype."""


class LiveTensorCounter(TorchDispatchMode):
    """Counts the bytes of tensors that are alive while it is open, and the most there were at once."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        """`known` are there already, and are not counted."""
        super().__init__()
        self.sizes, self.now, self.peak = {t.untyped_storage()._cdata: 0 for t in known}, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.is_mkldnn:  # It is opaque and has no storage.
                self._see(tensor, id(tensor), tensor.numel() * tensor.itemsize)
            elif isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                self._see(storage, storage._cdata, storage.nbytes())
        return out

    def reset_peak(self) -> None:
        """What follows has a peak of its own."""
        self.peak = self.now

    def _see(self, held: Any, name: int, size: int) -> None:
        if name in self.sizes:
            return
        self.sizes[name] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(held, self._gone, name)

    def _gone(self, name: int) -> None:
        self.now -= self.sizes.pop(name)


@dataclass(frozen=True, kw_only=True)
class MetaModel:
    """A model of shapes alone, and what its real weights take."""

    model: Any
    device: str
    """Where the real one is to be: cpu or cuda."""
    weights: int
    """Bytes of the base, in 4 bits where it is quantised."""
    adapter: int
    """Bytes of one adapter on it; 0 without."""
    largest_dequantized: int
    """Bytes of the largest weight that has to be unpacked from 4 bits to be multiplied with; 0 where none is."""
    prepacked: int
    """Bytes of the weights that are held once more while tokens are written; 0 on a GPU."""

    @property
    def inner(self) -> Any:
        """The model without its adapter's wrapper."""
        return self.model.get_base_model() if is_adapted(self.model) else self.model

    @property
    def trunk(self) -> Any:
        """What turns tokens into hidden states."""
        return self.inner.base_model

    @property
    def trained(self) -> int:
        """Bytes of all that learns."""
        return nbytes(p for p in self.model.parameters() if p.requires_grad)


def make_meta_model(
    source: Pretrained,
    *,
    texts: Sequence[str],
    device: str,
    scalar: bool = False,
    lora: Lora | None = None,
    config: Any = None,
) -> MetaModel:
    """The model that `source` would load there, with a head for one number where `scalar`, and an adapter of a shape.

    `config` in place of the source's own is of a model with other shapes.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind, dtype = AutoModelForSequenceClassification if scalar else AutoModelForCausalLM, source.resolve_dtype(device)
    config = config or source.load_config(texts)
    if scalar:
        config.num_labels = 1
    with torch.device("meta"):
        model = kind.from_config(config, dtype=dtype, attn_implementation=_attention(source.attention))
        packed = _packed(model) if source.quantization == "nf4" else []
        weights = nbytes(model.parameters()) - nbytes(packed) + int(NF4 * sum(w.numel() for w in packed))
        unpacked = max((w.nbytes for w in packed), default=0)
        again = prepackable_weights(model) if device == "cpu" else []
        laid_out = nbytes(w for w in again if not any(w is other for other in packed))
        if lora is None:
            return MetaModel(
                model=model, device=device, weights=weights, adapter=0, largest_dequantized=unpacked, prepacked=laid_out
            )
        from peft import get_peft_model

        model.requires_grad_(False)
        adapted = get_peft_model(model, lora.config())
    return MetaModel(
        model=adapted,
        device=device,
        weights=weights,
        largest_dequantized=unpacked,
        prepacked=laid_out,
        adapter=nbytes(p for name, p in adapted.named_parameters() if "lora_" in name),
    )


def training_memory(of: MetaModel, *, rows: int, length: int, answer: int, passes: int = 1) -> int:
    """The most bytes beside weights in one forward and backward pass: activations, logits, and the gradient.

    `rows` sequences of `length` tokens, of which the last `answer` are learned; 0 reads one number at the end. A critic
    with a trunk of its own makes a second of the `passes`.
    """
    ids = torch.zeros(rows, length, dtype=torch.long, device="meta")
    with LiveTensorCounter(of.model.parameters()) as alive:
        loss = torch.zeros((), device="meta")
        for number in range(passes):
            hidden = of.trunk(input_ids=ids, use_cache=False).last_hidden_state
            loss = loss + (_likelihood(of, hidden, answer) if answer and number == 0 else hidden[:, -1].float().sum())
            del hidden
        loss.backward()
    for parameter in of.model.parameters():
        parameter.grad = None
    return alive.peak + of.largest_dequantized


@torch.no_grad()
def inference_memory(of: MetaModel, *, rows: int, length: int) -> int:
    """The most bytes beside weights while `rows` sequences are read without gradient."""
    ids = torch.zeros(rows, length, dtype=torch.long, device="meta")
    with LiveTensorCounter(of.model.parameters()) as alive:
        of.trunk(input_ids=ids, use_cache=False)
    return alive.peak + of.largest_dequantized


@dataclass(frozen=True, kw_only=True)
class GenerationMemory:
    """What sampling takes beside weights."""

    cache: int
    """Bytes of the keys and values of all answers when the last token is drawn."""
    work: int
    """The most bytes beside these: the prompts being read, or the last token being drawn."""


@torch.no_grad()
def generation_memory(
    of: MetaModel, *, prompts: int, group: int, prompt: int, answer: int, later: int = 0
) -> GenerationMemory:
    """What it takes to read that many prompts of that many tokens at once, and to write `group` answers to each.

    Each prompt is remembered once for its group, and of each answer as many tokens as there is room for; also those
    that are read later, their answers in the places of others, while some of each group are still written.
    """
    from transformers import DynamicCache

    from alignbench.generation.kv_cache import INITIAL_CAPACITY

    rows, head, config, room = (
        prompts * group,
        of.inner.get_output_embeddings().weight,
        of.inner.config,
        INITIAL_CAPACITY,
    )
    while room < answer:
        room *= 2
    with LiveTensorCounter(of.model.parameters()) as alive:
        asked = DynamicCache(config=config)
        _read(of, prompts, prompt, asked)
        inference_memory = alive.peak
        joined = DynamicCache(config=config)
        if later:
            _read(of, later, prompt, joined)
        written = DynamicCache(config=config)
        _read(of, rows, room - 1, written)
        held = alive.now
        alive.reset_peak()
        _read(of, rows, 1, written)
        step = alive.peak - held
        held = alive.now
    attended = rows * config.get_text_config().num_attention_heads * (prompt + room) * ATTENTION_BYTES
    last = step + attended + rows * head.shape[0] * (head.itemsize + SAMPLING_BYTES)
    return GenerationMemory(cache=held, work=max(inference_memory - held, last) + of.largest_dequantized)


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of these tensors together."""
    return sum(tensor.nbytes for tensor in tensors)


def _likelihood(of: MetaModel, hidden: Tensor, answer: int) -> Tensor:
    head = LMHead(of.inner.get_output_embeddings())
    before = hidden[:, -answer:].flatten(0, 1)
    wanted = torch.zeros(len(before), dtype=torch.long, device="meta")
    logprobs, entropy = token_logprobs(
        before,
        wanted,
        head,
        vocabulary=head.layer.weight.shape[0],
        temperature=1.0,
        suppressed=(),
        tile_size=logits_per_tile(of.device),
    )
    return (logprobs + entropy).sum()


def _read(of: MetaModel, rows: int, tokens: int, cache: Any) -> None:
    ids = torch.zeros(rows, tokens, dtype=torch.long, device="meta")
    of.trunk(input_ids=ids, past_key_values=cache, use_cache=True)


def _attention(named: str) -> str:
    """An attention of shapes that transformers makes no mask for: to make one it would look at numbers."""
    from transformers import AttentionInterface

    for name, attend in (("shapes_fused", _fused), ("shapes_eager", _eager)):
        AttentionInterface.register(name, attend)
    return "shapes_eager" if named == "eager" else "shapes_fused"


class _Fused(torch.autograd.Function):
    """Attention in one kernel: queries, keys, values, the result and its normalizer are kept for the way back."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:3], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def _fused(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **_: Any) -> tuple[Tensor, None]:
    if query.shape[2] > 1 and not torch.is_grad_enabled():  # prompts of a batch are padded, and so masked
        key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], 1) for part in (key, value))
        query.new_empty(len(query), 1, query.shape[2], key.shape[2])
    return _Fused.apply(query, key, value).transpose(1, 2).contiguous(), None


def _eager(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **_: Any) -> tuple[Tensor, None]:
    key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], 1) for part in (key, value))
    weights = (query @ key.transpose(2, 3) * 1.0).softmax(-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), None


def _packed(model: Any) -> list[Tensor]:
    """The weights that bitsandbytes keeps in 4 bits: of every linear layer but the head."""
    heads = (model.get_output_embeddings(), getattr(model, "score", None))
    return [
        layer.weight
        for layer in model.modules()
        if isinstance(layer, nn.Linear) and not any(layer is head for head in heads)
    ]
