"""The estimators of KL, and of its gradient, against all five outcomes of a categorical distribution."""

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from alignbench.equations.divergences import estimate, k1, k2, k3, likelihood_ratio, log_ratio, with_exact_gradient

LOGITS = tensor([0.3, -1.2, 0.8, 0.1, -0.5], dtype=torch.float64)
REF = tensor([-0.4, 0.6, 0.2, -0.9, 0.5], dtype=torch.float64).log_softmax(0)
OLD = tensor([0.9, -0.2, -0.3, 0.4, 0.0], dtype=torch.float64).log_softmax(0)
ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}
every_estimator = pytest.mark.parametrize("name", ESTIMATORS)


def kl(p, q):
    return (p.exp() * (p - q)).sum()


def expected(losses_of, under):
    """Value and gradient of E_a[loss(a)], each of the five tokens weighted by the probability it is sampled with."""
    logits = LOGITS.clone().requires_grad_()
    losses = losses_of(logits.log_softmax(0)[None])
    value = (under.exp() * losses).sum()
    return value.detach(), torch.autograd.grad(value, logits)[0]


def gradient(divergence):
    """The gradient of a divergence of the policy, from its definition."""
    logits = LOGITS.clone().requires_grad_()
    return torch.autograd.grad(divergence(logits.log_softmax(0)), logits)[0]


POLICY = LOGITS.log_softmax(0)
TRUE_GRADIENT = gradient(lambda p: kl(p, REF))


def test_by_hand():
    """pi = 1/2 and ref = 1/4: log(pi / ref) = log 2."""
    logprobs, ref = tensor([[0.5]]).log(), tensor([[0.25]]).log()
    assert_close(k1(logprobs, ref), tensor([[0.693147]]))
    assert_close(k2(logprobs, ref), tensor([[0.5 * 0.693147**2]]))
    assert_close(k3(logprobs, ref), tensor([[0.5 - 1 + 0.693147]]))
    assert_close(k3(ref, logprobs), tensor([[2.0 - 1 - 0.693147]]))
    assert_close(likelihood_ratio(logprobs, ref), tensor([[2.0]]))


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(name):
    value, _ = expected(lambda p: estimate(name, p, REF[None]), under=POLICY)
    assert_close(value, kl(POLICY, REF))


def test_k2_is_biased_and_k3_never_negative():
    value, _ = expected(lambda p: k2(p, REF[None]), under=POLICY)
    assert (value - kl(POLICY, REF)).abs() > 0.01
    assert (k3(POLICY[None], REF[None]) >= 0).all()
    assert (k1(POLICY[None], REF[None]) < 0).any()


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        ("k1", torch.zeros(5, dtype=torch.float64)),
        ("k2", TRUE_GRADIENT),
        ("k3", gradient(lambda p: kl(REF, p))),
    ],
)
def test_the_plain_gradient_of_each_estimator(name, truth):
    _, descended = expected(lambda p: estimate(name, p, REF[None]), under=POLICY)
    assert_close(descended, truth)


@every_estimator
@pytest.mark.parametrize("sampler", [POLICY, OLD], ids=["on policy", "off policy"])
def test_the_exact_gradient_is_that_of_the_kl_for_any_sampler(name, sampler):
    def losses(p):
        return with_exact_gradient(estimate(name, p, REF[None]), p, REF[None], sampler[None])

    value, descended = expected(losses, under=sampler)
    assert_close(descended, TRUE_GRADIENT)
    assert_close(value, (sampler.exp() * ESTIMATORS[name](POLICY[None], REF[None])).sum())


def test_equal_policies_are_at_distance_zero():
    for estimator in ESTIMATORS.values():
        assert torch.equal(estimator(POLICY[None], POLICY[None]), torch.zeros(1, 5, dtype=torch.float64))


def test_log_ratios_beyond_twenty_stay_finite():
    far, near = tensor([[0.0, -500.0]]), tensor([[-500.0, 0.0]])
    assert torch.equal(log_ratio(far, near), tensor([[20.0, -20.0]]))
    assert_close(likelihood_ratio(far, near), tensor([[20.0, -20.0]]).exp())
    for estimator in ESTIMATORS.values():
        logprobs = far.clone().requires_grad_()
        exact = with_exact_gradient(estimator(logprobs, near), logprobs, near, near)
        assert torch.autograd.grad(exact.sum() + estimator(logprobs, near).sum(), logprobs)[0].isfinite().all()
        assert exact.isfinite().all()


@every_estimator
def test_tokens_are_independent(name):
    logprobs, ref = -torch.rand(2, 3), -torch.rand(2, 3)
    spoiled = logprobs.clone()
    spoiled[0, 1] = 1e6
    kept = torch.ones(2, 3, dtype=torch.bool)
    kept[0, 1] = False
    assert torch.equal(estimate(name, spoiled, ref)[kept], estimate(name, logprobs, ref)[kept])
