"""The tiled LM head equals the full head, gradients included, with bounded memory."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from alignbench.kernels import chunked_lm_head, logprobs
from alignbench.kernels.chunked_lm_head import LMHead
from alignbench.kernels.logprobs import token_logprobs
from alignbench.kernels.onednn import use_onednn
from alignbench.planning.memory import LiveTensorCounter

TOKENS, WIDTH, VOCABULARY = 50, 64, 640
NEVER = (0, 200)
SIZES = [100, 1000, 3000, 20_000]
"""Tile sizes: some columns of one token, of some tokens, and of all tokens."""


def make_inputs(vocabulary=VOCABULARY, tokens=TOKENS, *, bias=False, onednn=False, dtype=torch.float32):
    """Hidden states, a linear layer, and tokens, none of them suppressed."""
    torch.manual_seed(0)
    layer = nn.Linear(WIDTH, vocabulary, bias=bias).to(dtype)
    nn.init.normal_(layer.weight, std=0.3)
    targets = torch.randint(1, vocabulary, (tokens,))
    hidden = torch.randn(tokens, WIDTH, dtype=dtype, requires_grad=True)
    return hidden, use_onednn(nn.Sequential(layer))[0] if onednn else layer, targets + (targets == NEVER[1])


def whole(hidden, head, tokens, never, temperature):
    """The textbook formula in float64."""
    logits = functional.linear(
        hidden.double(), head.layer.weight.double(), None if head.layer.bias is None else head.layer.bias.double()
    )
    logits = logits if head.cap is None else head.cap * torch.tanh(logits / head.cap)
    logp = (logits / temperature).index_fill(1, torch.tensor(never, dtype=torch.long), -1e9).log_softmax(-1)
    return logp.gather(1, tokens[:, None])[:, 0], -(logp.exp() * logp).sum(-1)


def check(hidden, head, tokens, *, tile, never=(), temperature=1.0, weights=(1.0, 0.5), close=1e-5):
    """Compare values and gradients; `weights` are those of log-probabilities and entropy in the loss."""
    with torch.no_grad():
        before = token_logprobs(
            hidden, tokens, head, vocabulary=VOCABULARY, temperature=temperature, suppressed=never, tile_size=tile
        )
    ours = token_logprobs(
        hidden, tokens, head, vocabulary=VOCABULARY, temperature=temperature, suppressed=never, tile_size=tile
    )
    assert all(torch.equal(one, other) for one, other in zip(before, ours, strict=True))
    inputs = [tensor for tensor in (hidden, *head.layer.parameters()) if tensor.requires_grad]
    found = list(ours)
    expected = list(whole(hidden, head, tokens, never, temperature))
    for results in (found, expected):
        by_token = torch.linspace(-1, 1, len(tokens))
        loss = sum(weight * (by_token * part).sum() for weight, part in zip(weights, results, strict=True) if weight)
        results += torch.autograd.grad(loss, inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other.double(), atol=close, rtol=close)
    assert [part.dtype for part in found[2:]] == [part.dtype for part in inputs]


@pytest.mark.parametrize("onednn", [False, True])
@pytest.mark.parametrize("tile", SIZES)
def test_values_and_gradients_do_not_depend_on_the_tile_size(tile, onednn, monkeypatch):
    monkeypatch.setattr(chunked_lm_head, "MIN_TILE_WIDTH", 48)  # so that rows are split, too
    hidden, layer, tokens = make_inputs(onednn=onednn)
    check(hidden, LMHead(layer), tokens, tile=tile, never=NEVER, temperature=0.7)


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (1.0, -0.5)])
@pytest.mark.parametrize("temperature", [0.5, 1.0])
@pytest.mark.parametrize("cap", [None, 3.0])
@pytest.mark.parametrize("bias", [False, True])
def test_gradients_with_bias_cap_temperature_and_entropy(bias, cap, temperature, weights):
    hidden, layer, tokens = make_inputs(bias=bias)
    check(hidden, LMHead(layer, cap), tokens, tile=3000, never=NEVER, temperature=temperature, weights=weights)


@pytest.mark.parametrize("learns", ["hidden", "weight", "bias"])
def test_each_part_can_be_trained_alone(learns):
    hidden, layer, tokens = make_inputs(bias=True)
    hidden.requires_grad_(learns == "hidden")
    layer.weight.requires_grad_(learns == "weight")
    layer.bias.requires_grad_(learns == "bias")
    check(hidden, LMHead(layer), tokens, tile=3000)


def test_16_bit_weights_get_16_bit_gradients(monkeypatch):
    monkeypatch.setattr(chunked_lm_head, "MIN_TILE_WIDTH", 150)
    hidden, layer, tokens = make_inputs(dtype=torch.bfloat16)
    check(hidden, LMHead(layer), tokens, tile=3000, close=0.05)


def test_large_logits_neither_overflow_nor_underflow():
    hidden, layer, tokens = make_inputs()
    check(hidden * 30, LMHead(layer), tokens, tile=1000, close=2e-4)


def test_a_tile_of_suppressed_tokens_only():
    hidden, layer, tokens = make_inputs()
    check(hidden, LMHead(layer), tokens.clamp(min=64), tile=64 * TOKENS, never=tuple(range(64)))


def test_only_a_plain_linear_layer_is_tiled(monkeypatch):
    class Adapted(nn.Linear):
        def forward(self, input):
            return super().forward(input) * 2

    layer, calls = Adapted(WIDTH, VOCABULARY), []
    monkeypatch.setattr(logprobs, "tiled_logprobs", lambda *args, **options: calls.append(args) or (0, 0))
    options = {"vocabulary": VOCABULARY, "temperature": 1.0, "suppressed": (), "tile_size": 3000}
    hidden, plain, tokens = make_inputs()
    logp, _ = token_logprobs(hidden, tokens, LMHead(layer), **options)
    expected = layer(hidden).log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    torch.testing.assert_close(logp, expected, atol=1e-5, rtol=1e-5)
    assert not calls
    token_logprobs(hidden, tokens, LMHead(plain), **options)
    assert calls


def test_a_small_vocabulary_is_not_tiled(monkeypatch):
    hidden, layer, tokens = make_inputs()
    assert chunked_lm_head.needs_tiling(LMHead(layer), TOKENS, 3000)
    assert not chunked_lm_head.needs_tiling(LMHead(layer), TOKENS, TOKENS * VOCABULARY)
    monkeypatch.setattr(chunked_lm_head, "MIN_TILE_WIDTH", VOCABULARY)
    assert not chunked_lm_head.needs_tiling(LMHead(layer), TOKENS, 3000)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(("tokens", "vocabulary"), [(100, 4000), (400, 4000), (100, 16_000)])
def test_peak_memory_depends_on_neither_tokens_nor_vocabulary(tokens, vocabulary, learned):
    tile = 1 << 14
    hidden, layer, targets = make_inputs(vocabulary, tokens)
    layer.requires_grad_(learned)
    with LiveTensorCounter([hidden, targets, layer.weight]) as alive:
        logp, entropy = token_logprobs(
            hidden, targets, LMHead(layer), vocabulary=vocabulary, temperature=1.0, suppressed=(0,), tile_size=tile
        )
        (logp + entropy).sum().backward()
    of_hidden, of_weight = 3 * hidden.nbytes, 2 * layer.weight.nbytes * learned
    assert alive.peak < 3.5 * 4 * tile + of_hidden + of_weight
    assert 2 * 4 * tile < alive.peak


def test_backward_accumulates_in_place_unless_the_weight_has_hooks():
    hidden, layer, tokens = make_inputs()
    head, options = LMHead(layer), {"vocabulary": VOCABULARY, "temperature": 1.0, "suppressed": (), "tile_size": 3000}

    def loss():
        return token_logprobs(hidden, tokens, head, **options)[0].sum()

    (found,) = torch.autograd.grad(loss(), [layer.weight])
    assert layer.weight.grad is None
    loss().backward(inputs=[hidden])
    assert layer.weight.grad is None
    loss().backward()
    torch.testing.assert_close(layer.weight.grad, found, atol=1e-6, rtol=1e-6)
    loss().backward(inputs=[layer.weight])
    torch.testing.assert_close(layer.weight.grad, 2 * found, atol=1e-6, rtol=1e-6)
    layer.weight.register_hook(lambda gradient: gradient * 0)
    loss().backward()
    torch.testing.assert_close(layer.weight.grad, 2 * found, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("before", [False, True])
def test_a_tied_head_allocates_one_matrix_beside_its_gradient(before):
    tile, vocabulary = 1 << 14, 16_000
    _, layer, tokens = make_inputs(vocabulary, 100)
    table = layer.weight

    def learn():
        logp, entropy = token_logprobs(
            functional.embedding(tokens, table) * 2,
            tokens,
            LMHead(layer),
            vocabulary=vocabulary,
            temperature=1.0,
            suppressed=(0,),
            tile_size=tile,
        )
        (logp + entropy).sum().backward()

    if before:
        learn()
    with LiveTensorCounter([table, tokens, *([table.grad] if before else [])]) as alive:
        learn()
    assert alive.peak < (1 if before else 2) * table.nbytes + 4 * 4 * tile
