"""What an algorithm is, and what it refuses to be."""

from dataclasses import FrozenInstanceError

import pytest

from alignbench.algorithms.grpo import GRPO
from alignbench.algorithms.kl import AdaptiveKL, FixedKL
from alignbench.algorithms.ppo import PPO
from alignbench.algorithms.rloo import RLOO
from alignbench.core.contracts import Algorithm, KLController
from alignbench.core.errors import UserError

every_algorithm = pytest.mark.parametrize("algorithm", [PPO(), GRPO(), RLOO()], ids=["ppo", "grpo", "rloo"])


@every_algorithm
def test_each_is_an_algorithm_with_a_controller(algorithm):
    assert isinstance(algorithm, Algorithm)
    assert isinstance(algorithm.kl, KLController)
    assert (algorithm.critic is not None) is isinstance(algorithm, PPO)


@pytest.mark.parametrize("controller", [FixedKL(), AdaptiveKL()], ids=["fixed", "adaptive"])
def test_each_controller_is_one(controller):
    assert isinstance(controller, KLController)


@pytest.mark.parametrize("settled", [PPO(), GRPO(), RLOO(), FixedKL(), AdaptiveKL()], ids=lambda x: type(x).__name__)
def test_settings_cannot_change(settled):
    with pytest.raises(FrozenInstanceError):
        settled.coef = 1.0


REFUSED = {
    "grpo alone": (lambda: GRPO(group_size=1), "group_size=1.*use 2 or more"),
    "rloo alone": (lambda: RLOO(group_size=1), "group_size=1.*use 2 or more"),
    "ppo of fixed length without it": (lambda: PPO(reduction="fixed_length"), "fixed_length=<response limit"),
    "grpo of fixed length without it": (lambda: GRPO(reduction="fixed_length"), "fixed_length=<response limit"),
    "rloo of fixed length without it": (lambda: RLOO(reduction="fixed_length"), "fixed_length=<response limit"),
    "rloo with std": (lambda: RLOO(scale_by_std=True), "scale_by_std and eps.*use algo=grpo"),
    "rloo with eps": (lambda: RLOO(eps=1e-6), "scale_by_std and eps.*use algo=grpo"),
    "idle length": (lambda: PPO(fixed_length=8), "not read by reduction=token_mean"),
    "a penalty without gradient": (lambda: FixedKL(estimator="k1", exact_gradient=False), "k1.*no gradient.*use k2"),
    "the same, adaptive": (lambda: AdaptiveKL(estimator="k1", exact_gradient=False), "k1.*no gradient.*use k2"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals_say_what_to_do(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_what_is_refused_only_in_company_is_allowed_alone():
    assert FixedKL(estimator="k1", exact_gradient=False, placement="reward").placement == "reward"
    assert FixedKL(estimator="k1").exact_gradient
    assert PPO(group_size=1).group_size == 1
    assert GRPO(reduction="fixed_length", fixed_length=64).fixed_length == 64
