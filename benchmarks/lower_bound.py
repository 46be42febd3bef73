"""The least a step can take: its matrix products timed alone, its bytes at a copy's speed."""

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
from benchmarks.workload import Load, wait

ENOUGH = 0.01
"""Seconds that a timing takes at least."""
OPTIMIZER = 7
"""How often AdamW moves each number it trains: weight, gradient and two moments read, all but the gradient written."""


@dataclass(frozen=True)
class Product:
    """[rows, inner] @ [inner, columns], a batch of them at once."""

    rows: int
    inner: int
    columns: int
    batch: int = 1


@dataclass(frozen=True)
class Least:
    """Seconds of one part of a step."""

    matmul: float
    """Of its matrix products and nothing else."""
    bandwidth: float
    """Of its bytes: weights, keys and values, and what the optimizer holds, moved as rarely as can be."""

    @property
    def seconds(self) -> float:
        """The larger: the other can be hidden behind it."""
        return max(self.matmul, self.bandwidth)


@dataclass(frozen=True, kw_only=True)
class Work:
    """The matrix products of one part of a step, how often each, and the bytes that it moves."""

    products: Counter[Product]
    moved: float

    def least(self, policy: CausalPolicy) -> Least:
        """On the policy's device and in its dtype."""
        device, dtype = str(policy.device), policy.dtype
        matmul = sum(times * product_seconds(product, device, dtype) for product, times in self.products.items())
        return Least(matmul, self.moved / bandwidth(device))


@dataclass(frozen=True)
class Shape:
    """What of a model decides its work."""

    linears: tuple[tuple[int, int, bool], ...]
    """Inputs and outputs of each layer's products, an adapter's among them, and whether the weight is trained."""
    head: tuple[int, int, bool]
    layers: int
    heads: int
    known: int
    """Heads of keys and values."""
    width: int
    """Of a head."""
    weights: int
    """Bytes that are read to read a token."""
    learned: int
    """Bytes that are trained."""
    remembered: int
    """Bytes of the keys and values of a token."""

    @classmethod
    def of(cls, policy: CausalPolicy) -> "Shape":
        """As the policy is now."""
        config, head = policy.inner.config.get_text_config(), policy.lm_head.weight
        embeddings = policy.inner.get_input_embeddings().weight
        modules = [m for m in policy.decoder.modules() if isinstance(m, nn.Linear)]
        heads = config.num_attention_heads
        known = getattr(config, "num_key_value_heads", None) or heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        return cls(
            linears=tuple((m.in_features, m.out_features, m.weight.requires_grad) for m in modules),
            head=(head.shape[1], head.shape[0], head.requires_grad),
            layers=config.num_hidden_layers,
            heads=heads,
            known=known,
            width=width,
            weights=nbytes(p for p in policy.decoder.parameters() if p is not embeddings) + head.nbytes,
            learned=nbytes(p for _, p in policy.trainable()),
            remembered=2 * config.num_hidden_layers * known * width * policy.dtype.itemsize,
        )

    def read(self, tokens: int) -> Counter[Product]:
        """All layers over that many tokens at once, attention left out."""
        return Counter(Product(tokens, inputs, outputs) for inputs, outputs, _ in self.linears)

    def attend(self, batch: int, asked: int, known: int) -> Counter[Product]:
        """Queries against keys, then weights against values, in all layers."""
        return Counter({Product(asked, self.width, known, batch): self.layers}) + Counter(
            {Product(asked, known, self.width, batch): self.layers}
        )

    def say(self, tokens: int) -> Counter[Product]:
        """The logits that follow that many tokens."""
        return Counter([Product(tokens, *self.head[:2])])

    def learn(self, tokens: int, said: int) -> Counter[Product]:
        """The way back through layers and head: to what came in, and to the weights that are trained."""
        found = Counter[Product]()
        for (inputs, outputs, learns), rows in [*((linear, tokens) for linear in self.linears), (self.head, said)]:
            found[Product(rows, outputs, inputs)] += 1
            found[Product(outputs, rows, inputs)] += learns
        return found


def rollout(shape: Shape, load: Load) -> Work:
    """Prompts are read once for their group; a step reads all weights, and all keys and values so far."""
    steps, half = load.answer - 1, max(load.answer // 2, 1)
    shared = shape.heads // shape.known
    step = (
        shape.read(load.answers)
        + shape.say(load.answers)
        + shape.attend(load.answers * shape.known, shared, half)
        + shape.attend(load.groups * shape.known, load.group * shared, load.prompt)
    )
    first = (
        shape.read(load.groups * load.prompt)
        + shape.say(load.groups)
        + shape.attend(load.groups * shape.heads, load.prompt, load.prompt)
    )
    remembered = shape.remembered * (load.groups * load.prompt + load.answers * half)
    return Work(products=first + times(step, steps), moved=load.answer * shape.weights + steps * remembered)


def score(shape: Shape, load: Load, reads: int) -> Work:
    """Forward passes, a microbatch at a time, prompts once for the answers that stand in it."""
    rows = min(load.microbatch, load.answers)
    parts, groups, tokens = _microbatches(load, rows)
    one = shape.read(tokens) + shape.say(rows * load.answer) + _attention(shape, load, rows, groups)
    return Work(products=times(one, parts * reads), moved=parts * reads * shape.weights)


def update(shape: Shape, load: Load) -> Work:
    """Forward and backward passes, gradients added up, and the optimizer's steps."""
    rows = min(load.microbatch, load.answers // load.minibatches)
    (parts, groups, tokens), said = _microbatches(load, rows), rows * load.answer
    one = (
        shape.read(tokens)
        + shape.say(said)
        + shape.learn(tokens, said)
        + times(_attention(shape, load, rows, groups), 3)
    )  # the way back has two products for each
    moved = parts * 2 * (shape.weights + shape.learned) + load.minibatches * OPTIMIZER * shape.learned
    return Work(products=times(one, parts), moved=moved)


def floors(policy: CausalPolicy, load: Load, reads: int) -> dict[str, Least]:
    """Of each part of a step."""
    shape = Shape.of(policy)
    works = {"rollout": rollout(shape, load), "score": score(shape, load, reads), "update": update(shape, load)}
    return {name: work.least(policy) for name, work in works.items()}


def _microbatches(load: Load, rows: int) -> tuple[int, int, int]:
    """How many of so many answers there are, and in each the prompts, and the tokens that must be read."""
    groups = max(rows // load.group, 1)
    return -(-load.answers // rows), groups, groups * load.prompt + rows * (load.answer - 1)


def _attention(shape: Shape, load: Load, rows: int, groups: int) -> Counter[Product]:
    return shape.attend(groups * shape.heads, load.prompt, load.prompt) + shape.attend(
        rows * shape.heads, load.answer, load.prompt + load.answer
    )


def times(products: Counter[Product], factor: int) -> Counter[Product]:
    """All of them so often."""
    return Counter({product: count * factor for product, count in products.items()})


@cache
def product_seconds(product: Product, device: str, dtype: torch.dtype) -> float:
    """Of one, as a linear layer makes it: the second factor lies transposed. On a CPU by MKL or oneDNN, the quicker."""
    p = product
    left = torch.randn(p.batch, p.rows, p.inner, device=device, dtype=dtype)
    right = torch.randn(p.batch, p.columns, p.inner, device=device, dtype=dtype).transpose(1, 2)
    out = torch.empty(p.batch, p.rows, p.columns, device=device, dtype=dtype)
    if p.batch > 1:
        return seconds(lambda: torch.bmm(left, right, out=out), device)
    plain = seconds(lambda: torch.mm(left[0], right[0], out=out[0]), device)
    if device != "cpu" or dtype != torch.float32:
        return plain
    return min(plain, seconds(lambda: onednn.linear(left[0], right[0].T), device))


@cache
def bandwidth(device: str) -> float:
    """Bytes read and written in a second by a copy that no cache holds."""
    size = 1 << (30 if device.startswith("cuda") else 28)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds(lambda: target.copy_(source), device)


def seconds(work: Callable[[], object], device: str) -> float:
    """Of one call, among as many in a row as can be timed; the quickest of three such rows."""
    work()
    wait(device)
    calls, found = 1, list[float]()
    while len(found) < 3:
        start = perf_counter()
        for _ in range(calls):
            work()
        wait(device)
        spent = perf_counter() - start
        if spent < ENOUGH:
            calls *= 2 if spent > ENOUGH / 4 else 4
        else:
            found.append(spent / calls)
    return min(found)
