"""Lower bounds on the time of a step: its matrix products timed alone, its bytes at the speed of a copy."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from time import perf_counter

import torch
from torch import nn

from alignbench.kernels import onednn
from alignbench.models.policy import CausalPolicy
from alignbench.planning.memory import nbytes
from benchmarks.workload import Load, synchronize

MIN_SECONDS = 0.01
"""Calls are repeated until a timing takes at least this long."""
ADAMW_TRANSFERS = 7
"""Reads and writes of AdamW per trained weight: reads weight, gradient and two moments, writes all but the gradient."""


@dataclass(frozen=True)
class MatMul:
    """A batched matrix product: [batch, rows, inner] @ [batch, inner, columns]."""

    rows: int
    inner: int
    columns: int
    batch: int = 1


@dataclass(frozen=True)
class Floor:
    """Lower bounds on the seconds of one part of a step."""

    matmul: float
    """Its matrix products and nothing else."""
    bandwidth: float
    """Its bytes, each moved as rarely as possible: weights, keys and values, optimizer state."""

    @property
    def seconds(self) -> float:
        """The larger bound: compute and transfers can overlap."""
        return max(self.matmul, self.bandwidth)


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work of one part of a step."""

    products: Counter[MatMul]
    """Number of calls of each matrix product."""
    bytes_moved: float

    def floor(self, policy: CausalPolicy) -> Floor:
        """The lower bounds on the policy's device and in its dtype."""
        device, dtype = str(policy.device), policy.dtype
        matmul = sum(count * matmul_seconds(product, device, dtype) for product, count in self.products.items())
        return Floor(matmul, self.bytes_moved / bandwidth(device))


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model that determine its work."""

    linears: tuple[tuple[int, int, bool], ...]
    """Input size, output size and whether the weight is trained, for each linear layer, adapters included."""
    head: tuple[int, int, bool]
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    weight_bytes: int
    """Bytes read in the forward pass of a token."""
    trained_bytes: int
    kv_bytes: int
    """Bytes of the keys and values of one token."""

    @classmethod
    def from_policy(cls, policy: CausalPolicy) -> "ModelShape":
        """Read the sizes of a policy's model."""
        config, head = policy.inner.config.get_text_config(), policy.lm_head.weight
        embeddings = policy.inner.get_input_embeddings().weight
        modules = [m for m in policy.decoder.modules() if isinstance(m, nn.Linear)]
        heads = config.num_attention_heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        return cls(
            linears=tuple((m.in_features, m.out_features, m.weight.requires_grad) for m in modules),
            head=(head.shape[1], head.shape[0], head.requires_grad),
            layers=config.num_hidden_layers,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            weight_bytes=nbytes(p for p in policy.decoder.parameters() if p is not embeddings) + head.nbytes,
            trained_bytes=nbytes(p for _, p in policy.trainable()),
            kv_bytes=2 * config.num_hidden_layers * kv_heads * head_dim * policy.dtype.itemsize,
        )

    def layer_products(self, tokens: int) -> Counter[MatMul]:
        """All linear layers in one pass over `tokens` tokens, without attention."""
        return Counter(MatMul(tokens, inputs, outputs) for inputs, outputs, _ in self.linears)

    def attention_products(self, batch: int, queries: int, keys: int) -> Counter[MatMul]:
        """Queries times keys, then weights times values, in all layers."""
        return Counter({MatMul(queries, self.head_dim, keys, batch): self.layers}) + Counter(
            {MatMul(queries, keys, self.head_dim, batch): self.layers}
        )

    def head_products(self, tokens: int) -> Counter[MatMul]:
        """The LM head over `tokens` positions."""
        return Counter([MatMul(tokens, *self.head[:2])])

    def backward_products(self, tokens: int, predicted: int) -> Counter[MatMul]:
        """The backward pass of layers (`tokens`) and LM head (`predicted`): input gradients, gradients of weights."""
        products = Counter[MatMul]()
        layers = [*((linear, tokens) for linear in self.linears), (self.head, predicted)]
        for (inputs, outputs, trained), rows in layers:
            products[MatMul(rows, outputs, inputs)] += 1
            products[MatMul(outputs, rows, inputs)] += trained
        return products


def rollout(shape: ModelShape, load: Load) -> Work:
    """Sampling: one prefill per group; each decoding step reads all weights and the keys and values so far."""
    steps, half = load.response_tokens - 1, max(load.response_tokens // 2, 1)
    shared = shape.heads // shape.kv_heads
    step = (
        shape.layer_products(load.responses)
        + shape.head_products(load.responses)
        + shape.attention_products(load.responses * shape.kv_heads, shared, half)
        + shape.attention_products(load.prompts * shape.kv_heads, load.group_size * shared, load.prompt_tokens)
    )
    prefill = (
        shape.layer_products(load.prompts * load.prompt_tokens)
        + shape.head_products(load.prompts)
        + shape.attention_products(load.prompts * shape.heads, load.prompt_tokens, load.prompt_tokens)
    )
    cache = shape.kv_bytes * (load.prompts * load.prompt_tokens + load.responses * half)
    return Work(
        products=prefill + scale(step, steps), bytes_moved=load.response_tokens * shape.weight_bytes + steps * cache
    )


def score(shape: ModelShape, load: Load, passes: int) -> Work:
    """Scoring: `passes` forward passes in microbatches, each prompt once for its responses in a microbatch."""
    rows = min(load.microbatch, load.responses)
    parts, groups, tokens = _microbatches(load, rows)
    one = (
        shape.layer_products(tokens)
        + shape.head_products(rows * load.response_tokens)
        + _attention(shape, load, rows, groups)
    )
    return Work(products=scale(one, parts * passes), bytes_moved=parts * passes * shape.weight_bytes)


def update(shape: ModelShape, load: Load) -> Work:
    """The update: forward and backward passes, gradient accumulation, and the optimizer steps."""
    rows = min(load.microbatch, load.responses // load.minibatches)
    (parts, groups, tokens), predicted = _microbatches(load, rows), rows * load.response_tokens
    one = (
        shape.layer_products(tokens)
        + shape.head_products(predicted)
        + shape.backward_products(tokens, predicted)
        + scale(_attention(shape, load, rows, groups), 3)
    )  # the backward pass has two products for each of the forward pass
    bytes_moved = (
        parts * 2 * (shape.weight_bytes + shape.trained_bytes)
        + load.minibatches * ADAMW_TRANSFERS * shape.trained_bytes
    )
    return Work(products=scale(one, parts), bytes_moved=bytes_moved)


def floors(policy: CausalPolicy, load: Load, scoring_passes: int) -> dict[str, Floor]:
    """The lower bounds on each part of a step."""
    shape = ModelShape.from_policy(policy)
    works = {
        "rollout": rollout(shape, load),
        "score": score(shape, load, scoring_passes),
        "update": update(shape, load),
    }
    return {name: work.floor(policy) for name, work in works.items()}


def _microbatches(load: Load, rows: int) -> tuple[int, int, int]:
    """Number of microbatches of `rows` responses, and the prompts and input tokens of each."""
    groups = max(rows // load.group_size, 1)
    return -(-load.responses // rows), groups, groups * load.prompt_tokens + rows * (load.response_tokens - 1)


def _attention(shape: ModelShape, load: Load, rows: int, groups: int) -> Counter[MatMul]:
    prompt, response = load.prompt_tokens, load.response_tokens
    return shape.attention_products(groups * shape.heads, prompt, prompt) + shape.attention_products(
        rows * shape.heads, response, prompt + response
    )


def scale(products: Counter[MatMul], factor: int) -> Counter[MatMul]:
    """Multiply all counts by `factor`."""
    return Counter({product: count * factor for product, count in products.items()})


@cache
def matmul_seconds(product: MatMul, device: str, dtype: torch.dtype) -> float:
    """Seconds of one product as in a linear layer (second factor transposed); on a CPU the faster of MKL and oneDNN."""
    p = product
    left = torch.randn(p.batch, p.rows, p.inner, device=device, dtype=dtype)
    right = torch.randn(p.batch, p.columns, p.inner, device=device, dtype=dtype).transpose(1, 2)
    out = torch.empty(p.batch, p.rows, p.columns, device=device, dtype=dtype)
    if p.batch > 1:
        return time_call(lambda: torch.bmm(left, right, out=out), device)
    plain = time_call(lambda: torch.mm(left[0], right[0], out=out[0]), device)
    if device != "cpu" or dtype != torch.float32:
        return plain
    return min(plain, time_call(lambda: onednn.linear(left[0], right[0].T), device))


@cache
def bandwidth(device: str) -> float:
    """Bytes read and written per second by a copy that is larger than any cache."""
    size = 1 << (30 if device.startswith("cuda") else 28)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / time_call(lambda: target.copy_(source), device)


def time_call(work: Callable[[], object], device: str) -> float:
    """Seconds of one call: calls are repeated for at least MIN_SECONDS, and the fastest of three series counts."""
    work()
    synchronize(device)
    calls, results = 1, list[float]()
    while len(results) < 3:
        start = perf_counter()
        for _ in range(calls):
            work()
        synchronize(device)
        spent = perf_counter() - start
        if spent < MIN_SECONDS:
            calls *= 2 if spent > MIN_SECONDS / 4 else 4
        else:
            results.append(spent / calls)
    return min(results)
