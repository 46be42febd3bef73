"""The KL penalty: its gradients, and the controllers of its coefficient."""

import pytest
import torch
from small_batches import descend, experience, forward, random_batch, scored
from torch import tensor
from torch.testing import assert_close

from alignbench.algorithms.grpo import GRPO
from alignbench.algorithms.kl import AdaptiveKL, BandKL, FixedKL, PhasedKL
from alignbench.algorithms.ppo import PPO
from alignbench.core.batches import Forward
from alignbench.core.protocols import KLControlState, KLStats

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
        old_logprobs=POLICY[ACTIONS],
        ref_logprobs=REF[ACTIONS],
        responses=ACTIONS,
        scores=torch.full((10,), 0.35),
        group=torch.zeros(10, dtype=torch.long),
        kl_coef=0.1,
    )
    logprobs = logits.log_softmax(0)[ACTIONS]
    now = Forward(logprobs=logprobs, entropy=torch.zeros_like(logprobs))
    return algorithm.loss(now, experience(algorithm, batch)).loss


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_in_the_loss_its_gradient_is_that_of_the_true_kl(estimator):
    logits = POLICY.clone().requires_grad_()
    gradient = torch.autograd.grad(loss_of(logits, GRPO(kl=FixedKL(estimator=estimator))), logits)[0]
    truth = torch.autograd.grad(0.1 * kl_to_ref(logits), logits)[0]
    assert gradient.norm() > 0.01
    assert_close(gradient, truth)
    assert kl_to_ref(logits - gradient) < kl_to_ref(logits)


@pytest.mark.parametrize(("estimator", "divergence"), [("k2", kl_to_ref), ("k3", kl_from_ref)])
def test_without_the_exact_gradient_it_is_the_estimators_own(estimator, divergence):
    logits = POLICY.clone().requires_grad_()
    loss = loss_of(logits, GRPO(kl=FixedKL(estimator=estimator, exact_gradient=False)))
    assert_close(torch.autograd.grad(loss, logits), torch.autograd.grad(0.1 * divergence(logits), logits))


def test_the_value_in_the_loss_is_that_of_the_estimator():
    batch = scored(
        old_logprobs=tensor([[-1.0]]), ref_logprobs=tensor([[-1.5]]), scores=tensor([0.0]), group=tensor([0])
    )
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
    losses = [
        descend(algorithm, forward(b, moved=0.3), experience(algorithm, b))[0]
        for b in (random_batch(kl_coef=c) for c in (0.0, 0.1, 0.2))
    ]
    assert_close(losses[2] - losses[1], losses[1] - losses[0], rtol=1e-3, atol=1e-6)
    assert losses[1] > losses[0]


def drift(per_sequence=0.0, per_token=0.0, episodes=256, progress=0.5):
    return KLStats(per_sequence=per_sequence, per_token=per_token, episodes=episodes, progress=progress)


def test_fixed_stays():
    held = KLControlState(coef=0.5, learning_rate_scale=0.25)
    assert FixedKL(coef=0.02).next(held, drift(99.0, 9.0)) == held
    assert FixedKL(coef=0.02).start == KLControlState(coef=0.02)


# 256 episodes of 10,000: a relative error e changes the coefficient by the factor 1 + 0.0256 e
@pytest.mark.parametrize(
    ("kl", "factor"),
    [
        (6.0, 1.0),
        (6.6, 1 + 0.1 * 0.0256),
        (5.4, 1 - 0.1 * 0.0256),
        (7.2, 1 + 0.2 * 0.0256),
        (60.0, 1 + 0.2 * 0.0256),
        (0.0, 1 - 0.2 * 0.0256),
        (-3.0, 1 - 0.2 * 0.0256),
    ],
)
def test_adaptive_by_hand(kl, factor):
    controller = AdaptiveKL(target=6.0, horizon=10_000)
    assert controller.next(KLControlState(coef=0.3), drift(kl, 99.0)).coef == pytest.approx(0.3 * factor)


def test_adaptive_per_token_looks_at_the_kl_of_a_token():
    controller = AdaptiveKL(target=0.05, unit="per_token", horizon=1000)
    assert controller.next(KLControlState(coef=0.3), drift(99.0, 0.055, episodes=100)).coef == pytest.approx(0.3 * 1.01)


@pytest.mark.parametrize("start", [0.02, 5.0])
def test_adaptive_settles_where_the_kl_is_the_target(start):
    """For a policy whose KL is 1.2 / beta, a target of 6 is met at beta = 0.2."""
    controller, now = AdaptiveKL(target=6.0), KLControlState(coef=start)
    for _ in range(500):
        now = controller.next(now, drift(1.2 / now.coef, episodes=1000))
    assert now.coef == pytest.approx(0.2, rel=1e-2)


# A target of 6 and a band of 1.5: nothing changes from 4 to 9 nats.
@pytest.mark.parametrize(
    ("kl", "factor"), [(0.0, 1 / 3), (3.99, 1 / 3), (4.0, 1.0), (6.0, 1.0), (9.0, 1.0), (9.01, 3.0), (60.0, 3.0)]
)
def test_the_band_by_hand(kl, factor):
    controller = BandKL(target=6.0, band=1.5, factor=3.0)
    assert controller.next(KLControlState(coef=0.2), drift(kl, 99.0)).coef == pytest.approx(0.2 * factor)
    of_a_token = BandKL(target=6.0, band=1.5, factor=3.0, unit="per_token")
    assert of_a_token.next(KLControlState(coef=0.2), drift(99.0, kl)).coef == pytest.approx(0.2 * factor)


def test_the_band_as_published_doubles_and_halves():
    now = KLControlState(coef=1.0, learning_rate_scale=0.5)
    high, low = (BandKL(target=0.01, unit="per_token").next(now, drift(0.0, kl)) for kl in (0.02, 0.005))
    assert (high.coef, low.coef) == (2.0, 0.5)
    assert high.learning_rate_scale == 0.5
    assert BandKL(coef=0.3).start == KLControlState(coef=0.3)


def run(controller, kls):
    """What was in force at each step of a run whose KL per token is given."""
    held = [controller.start]
    for step, kl in enumerate(kls, 1):
        held.append(controller.next(held[-1], drift(per_token=kl, progress=step / len(kls))))
    return held


def test_phases_set_the_coefficient_at_their_boundaries():
    kl = PhasedKL(values=(0.05, 0.02, 0.01), boundaries=(1 / 3, 2 / 3))
    assert [held.coef for held in run(kl, [9.0] * 6)] == [0.05, 0.05, 0.02, 0.02, 0.01, 0.01, 0.01]


def test_phases_lower_the_learning_rate_while_the_kl_is_above_and_give_it_back():
    kl = PhasedKL(values=(0.05, 0.02), boundaries=(0.5,), action="lr", coef=0.0, floor=0.2)
    held = run(kl, [0.06, 0.06, 0.06, 0.04, 0.01, 0.01])  # at 0.04 the second phase has begun
    assert [h.learning_rate_scale for h in held] == [1.0, 0.5, 0.25, 0.2, 0.2, 0.4, 0.8]
    assert {h.coef for h in held} == {0.0}
    assert run(kl, [0.01] * 4)[-1].learning_rate_scale == 1.0


def test_phases_end_the_run_above_the_value_of_their_phase():
    kl = PhasedKL(values=(0.05, 0.02), boundaries=(0.5,), action="stop", coef=0.1)
    assert [held.stop for held in run(kl, [0.04, 0.04, 0.01, 0.01])] == [False, False, True, False, False]
    assert kl.start == KLControlState(coef=0.1)


@pytest.mark.parametrize("action", ["lr", "stop"])
def test_phases_can_look_at_the_kl_of_a_whole_response(action):
    kl = PhasedKL(values=(5.0,), boundaries=(), action=action, unit="per_sequence", coef=0.0)
    calm, alarmed = (kl.next(kl.start, drift(per_sequence=x, per_token=99.0)) for x in (4.9, 5.1))
    assert calm == KLControlState(coef=0.0)
    assert alarmed in (KLControlState(learning_rate_scale=0.5), KLControlState(stop=True))


def test_placement_none_is_neither_in_the_loss_nor_in_the_reward():
    batch = random_batch()
    kl = FixedKL(placement="none", coef=0.0)
    assert not kl.in_reward(batch).any()
    assert not kl.in_loss(forward(batch, moved=0.3), experience(GRPO(kl=kl), batch)).any()
