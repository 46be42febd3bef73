"""Token log-probabilities in slices equal those of all logits, gradients included."""

import pytest
import torch
from torch.distributions import Categorical

from alignbench.kernels import logprobs
from alignbench.kernels.logprobs import token_logprobs, vocabulary_logprobs
from alignbench.planning.memory import LiveTensorCounter

VOCABULARY, WIDTH, TOKENS = 11, 6, 9


@pytest.fixture
def drawn():
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(TOKENS, WIDTH, generator=draw, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH, generator=draw, requires_grad=True)
    return hidden, weight, torch.randint(1, VOCABULARY, (TOKENS,), generator=draw)


def work(drawn, never=(), temperature=1.0):
    hidden, weight, tokens = drawn
    return token_logprobs(
        hidden, tokens, lambda h: h @ weight.T, vocabulary=VOCABULARY, temperature=temperature, suppressed=never
    )


def gradients(drawn, **options):
    logp, entropy = work(drawn, **options)
    return logp.detach(), entropy.detach(), *torch.autograd.grad((logp * entropy).sum(), drawn[:2])


@pytest.mark.parametrize("logits_at_once", [1, VOCABULARY, 4 * VOCABULARY, 100 * VOCABULARY])
def test_values_and_gradients_do_not_depend_on_the_slice_size(drawn, monkeypatch, logits_at_once):
    whole = gradients(drawn, never=(0,), temperature=0.7)
    monkeypatch.setattr(logprobs, "SLICE_LOGITS", logits_at_once)
    for found, expected in zip(gradients(drawn, never=(0,), temperature=0.7), whole, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(work(drawn, never=(0,), temperature=0.7)[0], whole[0], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("slices", [VOCABULARY, 1 << 25])
def test_the_head_gets_at_most_one_slice_at_a_time(drawn, monkeypatch, slices):
    monkeypatch.setattr(logprobs, "SLICE_LOGITS", slices)
    hidden, weight, tokens = drawn
    rows = []

    def head(part):
        rows.append(len(part))
        return part @ weight.T

    token_logprobs(hidden, tokens, head, vocabulary=VOCABULARY, temperature=1.0, suppressed=())
    assert max(rows) == max(min(slices // VOCABULARY, TOKENS), 1)
    assert sum(rows) == TOKENS


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_values_equal_those_of_torch_categorical(drawn, temperature):
    hidden, weight, tokens = drawn
    expected = Categorical(logits=(hidden @ weight.T).double() / temperature)
    logp, entropy = work(drawn, temperature=temperature)
    torch.testing.assert_close(logp.double(), expected.log_prob(tokens), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy.double(), expected.entropy(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
@pytest.mark.parametrize(("chosen", "entropy"), [(1, 0), (0, 1), (1, -0.5)])
def test_gradients_equal_those_of_torch_log_softmax(drawn, temperature, chosen, entropy):
    hidden, weight, tokens = drawn
    logp = ((hidden @ weight.T).index_fill(1, torch.tensor([0]), -1e9).double() / temperature).log_softmax(-1)
    plain = (logp.gather(1, tokens[:, None])[:, 0], -(logp.exp() * logp).sum(-1))
    ours = work(drawn, never=(0,), temperature=temperature)
    found, expected = (
        torch.autograd.grad((chosen * a * torch.arange(9.0) + entropy * b).sum(), drawn[:2]) for a, b in (ours, plain)
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_logits_are_not_modified(dtype, temperature):
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = logits.clone()
    assert (vocabulary_logprobs(logits, temperature, (2,)).exp()[:, 2] == 0).all()
    assert torch.equal(logits, before)


def test_peak_memory_is_three_matrices_of_logits():
    hidden, weight = torch.randn(500, 8, requires_grad=True), torch.randn(2000, 8)
    with LiveTensorCounter([hidden, weight]) as alive:
        logp, entropy = token_logprobs(
            hidden,
            torch.ones(500, dtype=torch.long),
            lambda h: h @ weight.T,
            vocabulary=2000,
            temperature=1.0,
            suppressed=(0,),
        )
        (logp + entropy).sum().backward()
    assert alive.peak < 3.1 * 500 * 2000 * 4


def test_a_suppressed_token_changes_neither_values_nor_gradients(drawn):
    hidden, weight, tokens = drawn
    expected = Categorical(logits=(hidden @ weight.T)[:, 1:].double())
    logp, entropy, _, by_weight = gradients(drawn, never=(0,))
    torch.testing.assert_close(logp.double(), expected.log_prob(tokens - 1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy.double(), expected.entropy(), atol=1e-5, rtol=1e-5)
    assert (by_weight[0] == 0).all()
    assert by_weight.isfinite().all()


def test_low_precision_logits_are_converted_to_float32():
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(0)).bfloat16()
    logp = vocabulary_logprobs(logits, 1.0, ())
    assert logp.dtype == torch.float32
    torch.testing.assert_close(logp.exp().sum(-1), torch.ones(3), atol=1e-6, rtol=0)


def test_a_token_of_probability_one_has_entropy_zero_and_no_nan():
    head = torch.tensor([[0.0, 1e4, -1e4]])
    logp, entropy = token_logprobs(
        torch.ones(1, 1), torch.tensor([1]), lambda h: h @ head, vocabulary=3, temperature=1.0, suppressed=(0,)
    )
    assert (logp.item(), entropy.item()) == (0.0, 0.0)
