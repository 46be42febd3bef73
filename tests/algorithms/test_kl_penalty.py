"""The KL penalty: what it descends, and how its coefficient is steered."""

import pytest
import torch
from small_batches import descend, experience, forward, random_batch, scored
from torch import tensor
from torch.testing import assert_close

from alignbench.algorithms.grpo import GRPO
from alignbench.algorithms.kl import AdaptiveKL, FixedKL
from alignbench.algorithms.ppo import PPO
from alignbench.core.batches import Forward

COUNTS = tensor([1, 2, 3, 4])
POLICY = (COUNTS / 10).log()
REF = POLICY.flip(0)
ACTIONS = torch.arange(4).repeat_interleave(COUNTS)[:, None]  # ten answers of one token, in proportion


def kl_to_ref(logits):
    logprobs = logits.log_softmax(0)
    return (logprobs.exp() * (logprobs - REF)).sum()


def kl_from_ref(logits):
    return (REF.exp() * (REF - logits.log_softmax(0))).sum()


def loss_of(logits, algorithm):
    """The loss of a policy without context, on ten rollouts that all scored the same."""
    batch = scored(
        old_logprobs=POLICY[ACTIONS], ref_logprobs=REF[ACTIONS], responses=ACTIONS, scores=torch.full((10,), 0.35),
        group=torch.zeros(10, dtype=torch.long), kl_coef=0.1)
    logprobs = logits.log_softmax(0)[ACTIONS]
    now = Forward(logprobs=logprobs, entropy=torch.zeros_like(logprobs))
    return algorithm.loss(now, experience(algorithm, batch)).loss


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_in_the_loss_it_descends_the_true_kl_when_nothing_else_pulls(estimator):
    logits = POLICY.clone().requires_grad_()
    gradient = torch.autograd.grad(loss_of(logits, GRPO(kl=FixedKL(estimator=estimator))), logits)[0]
    truth = torch.autograd.grad(0.1 * kl_to_ref(logits), logits)[0]
    assert gradient.norm() > 0.01
    assert_close(gradient, truth)
    assert kl_to_ref(logits - gradient) < kl_to_ref(logits)


@pytest.mark.parametrize(("estimator", "divergence"), [("k2", kl_to_ref), ("k3", kl_from_ref)])
def test_without_the_exact_gradient_it_descends_the_estimators_own(estimator, divergence):
    logits = POLICY.clone().requires_grad_()
    loss = loss_of(logits, GRPO(kl=FixedKL(estimator=estimator, exact_gradient=False)))
    assert_close(torch.autograd.grad(loss, logits), torch.autograd.grad(0.1 * divergence(logits), logits))


def test_the_value_in_the_loss_is_that_of_the_estimator():
    batch = scored(
        old_logprobs=tensor([[-1.0]]), ref_logprobs=tensor([[-1.5]]), scores=tensor([0.0]), group=tensor([0]))
    now = Forward(logprobs=tensor([[-0.5]]), entropy=tensor([[0.0]]))
    for estimator, value in {"k1": 1.0, "k2": 0.5, "k3": 0.367879}.items():  # e^-1 - 1 + 1
        for exact in (True, estimator == "k1"):
            kl = FixedKL(estimator=estimator, exact_gradient=exact)
            assert_close(kl.in_loss(now, experience(GRPO(kl=kl), batch)), tensor([[value]]))


@pytest.mark.parametrize("kl", [FixedKL(placement="reward", estimator=e) for e in ("k1", "k2", "k3")])
def test_in_the_reward_it_is_not_in_the_loss(kl):
    batch = random_batch()
    assert kl.in_reward(batch).abs().sum() > 1
    assert not kl.in_reward(batch)[~batch.mask].any()
    algorithm = PPO(kl=kl)
    out = algorithm.loss(forward(batch, moved=0.3), experience(algorithm, batch))
    assert not out.tokens["kl_penalty"].any()


def test_in_the_loss_it_is_not_in_the_reward():
    batch = random_batch()
    assert not FixedKL().in_reward(batch).any()
    free, dear = (PPO(kl=FixedKL()).credit(random_batch(kl_coef=coef)) for coef in (0.0, 10.0))
    assert torch.equal(free.advantages, dear.advantages)


@pytest.mark.parametrize("method", [GRPO, PPO])
def test_the_coefficient_is_that_of_the_batch_and_not_of_the_start(method):
    algorithm = method(kl=FixedKL(coef=100.0))
    losses = [descend(algorithm, forward(b, moved=0.3), experience(algorithm, b))[0]
              for b in (random_batch(kl_coef=c) for c in (0.0, 0.1, 0.2))]
    assert_close(losses[2] - losses[1], losses[1] - losses[0], rtol=1e-3, atol=1e-6)
    assert losses[1] > losses[0]


def test_fixed_stays():
    assert FixedKL(coef=0.02).next(0.5, kl_per_sequence=99.0, kl_per_token=9.0, episodes=256) == 0.5


# 256 episodes of 10,000: a relative error e changes the coefficient by the factor 1 + 0.0256 e
@pytest.mark.parametrize(("kl", "factor"), [
    (6.0, 1.0),
    (6.6, 1 + 0.1 * 0.0256),
    (5.4, 1 - 0.1 * 0.0256),
    (7.2, 1 + 0.2 * 0.0256),
    (60.0, 1 + 0.2 * 0.0256),
    (0.0, 1 - 0.2 * 0.0256),
    (-3.0, 1 - 0.2 * 0.0256),
])
def test_adaptive_by_hand(kl, factor):
    controller = AdaptiveKL(target=6.0, horizon=10_000)
    assert controller.next(0.3, kl_per_sequence=kl, kl_per_token=99.0, episodes=256) == pytest.approx(0.3 * factor)


def test_adaptive_per_token_looks_at_the_kl_of_a_token():
    controller = AdaptiveKL(target=0.05, unit="per_token", horizon=1000)
    assert controller.next(0.3, kl_per_sequence=99.0, kl_per_token=0.055, episodes=100) == pytest.approx(0.3 * 1.01)


@pytest.mark.parametrize("start", [0.02, 5.0])
def test_adaptive_settles_where_the_kl_is_the_target(start):
    """For a policy whose KL is 1.2 / beta, a target of 6 is met at beta = 0.2."""
    controller, coef = AdaptiveKL(target=6.0), start
    for _ in range(500):
        coef = controller.next(coef, kl_per_sequence=1.2 / coef, kl_per_token=0.0, episodes=1000)
    assert coef == pytest.approx(0.2, rel=1e-2)
