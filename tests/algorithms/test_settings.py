"""The protocol of algorithms, and errors for invalid settings."""

from dataclasses import FrozenInstanceError

import pytest

from alignbench.algorithms.bnpo import BNPO
from alignbench.algorithms.cispo import CISPO
from alignbench.algorithms.gdpo import GDPO
from alignbench.algorithms.grpo import GRPO
from alignbench.algorithms.gspo import GSPO
from alignbench.algorithms.kl import AdaptiveKL, FixedKL
from alignbench.algorithms.normalizer import EMA
from alignbench.algorithms.pairing import Pairing
from alignbench.algorithms.pairwise import Pairwise
from alignbench.algorithms.ppo import PPO
from alignbench.algorithms.ppo_pairwise import PPOPairwise
from alignbench.algorithms.reinforce_pp import ReinforcePP
from alignbench.algorithms.rloo import RLOO
from alignbench.algorithms.sapo import SAPO
from alignbench.core.errors import UserError
from alignbench.core.protocols import Algorithm, KLController

ALL = [PPO(), GRPO(), RLOO(), ReinforcePP(), GSPO(), CISPO(), SAPO(), BNPO(), GDPO(), Pairwise(), PPOPairwise()]
every_algorithm = pytest.mark.parametrize("algorithm", ALL, ids=lambda algorithm: type(algorithm).__name__)


@every_algorithm
def test_each_is_an_algorithm_with_a_controller(algorithm):
    assert isinstance(algorithm, Algorithm)
    assert isinstance(algorithm.kl, KLController)
    assert (algorithm.critic is not None) is isinstance(algorithm, PPO)


@pytest.mark.parametrize("controller", [FixedKL(), AdaptiveKL()], ids=["fixed", "adaptive"])
def test_each_controller_is_one(controller):
    assert isinstance(controller, KLController)


@pytest.mark.parametrize("settled", [*ALL, Pairing(), FixedKL(), AdaptiveKL()], ids=lambda x: type(x).__name__)
def test_settings_cannot_change(settled):
    with pytest.raises(FrozenInstanceError):
        settled.coef = 1.0


REFUSED = {
    "a grpo group of one": (lambda: GRPO(group_size=1), "group_size=1.*use 2 or more"),
    "an rloo group of one": (lambda: RLOO(group_size=1), "group_size=1.*use 2 or more"),
    "ppo of fixed length without it": (lambda: PPO(reduction="fixed_length"), "fixed_length=<response limit"),
    "grpo of fixed length without it": (lambda: GRPO(reduction="fixed_length"), "fixed_length=<response limit"),
    "rloo of fixed length without it": (lambda: RLOO(reduction="fixed_length"), "fixed_length=<response limit"),
    "a baseline of one": (lambda: ReinforcePP(group_baseline=True), "group_size=1.*use 2 or more"),
    "a pair of one": (lambda: Pairwise(group_size=1), "group_size=1.*use 2 or more"),
    "ppo and a pair of one": (lambda: PPOPairwise(group_size=1), "group_size=1.*use 2 or more"),
    "pairs by their KL": (
        lambda: Pairwise(kl=FixedKL(placement="reward")),
        "any two rollouts a preference pair.*use loss",
    ),
    "a linear link with a reference": (lambda: Pairing(link="linear"), "beta=0.1 with link=linear.*beta=null"),
    "a logistic link without": (lambda: Pairing(beta=None), "beta=None with link=logistic"),
    "a win score with random pairs": (lambda: Pairing(selector="random", win_score=1.0), "win_score=1 has no effect"),
    "weights beyond one": (lambda: CISPO(weight_high=0.5), "weight_high=0.5.*1 must lie between"),
    "an empty range": (lambda: BNPO(low=1.0), "low=1 is not below high=1"),
    "a normalizer without effect": (lambda: GDPO(normalizer=EMA()), "normalizer has no effect"),
    "a length without effect": (lambda: PPO(fixed_length=8), "no effect with reduction=token_mean"),
    "a penalty without gradient": (lambda: FixedKL(estimator="k1", exact_gradient=False), "k1.*no gradient.*use k2"),
    "the same, adaptive": (lambda: AdaptiveKL(estimator="k1", exact_gradient=False), "k1.*no gradient.*use k2"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_error_messages_say_what_to_do(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_settings_that_are_invalid_only_in_combination_are_valid_alone():
    assert FixedKL(estimator="k1", exact_gradient=False, placement="reward").placement == "reward"
    assert FixedKL(estimator="k1").exact_gradient
    assert PPO(group_size=1).group_size == 1
    assert GRPO(reduction="fixed_length", fixed_length=64).fixed_length == 64
