"""Selection of the final weights of a run."""

import pytest
import torch

from alignbench.core.errors import UserError
from alignbench.stages.evaluate import Evaluate
from alignbench.stages.weight_selection import BestWeights, rank_weights

MARKS = {  # step: (KL, perplexity, reward)
    10: (0.5, 3.0, 1.0),
    20: (1.5, 2.5, 3.0),
    30: (0.9, 2.8, 2.0),
    40: (0.8, 2.8, 5.0),
}


class Weights:
    """A policy as far as choosing goes: weights that can be taken and put back."""

    def __init__(self) -> None:
        self.table = torch.zeros(2)

    def state(self):
        return {"table": self.table.clone()}

    def load(self, state):
        self.table = state["table"].clone()


def numbers(step):
    kl, perplexity, reward = MARKS[step]
    return {"eval/kl_token": kl, "eval/perplexity": perplexity, "eval/avg_reward": reward}


def chosen(**settings):
    policy, best = Weights(), BestWeights(Evaluate(**settings))
    for step in MARKS:
        policy.table = torch.full((2,), float(step))
        best.update(step, numbers(step), policy)
        best.update(step + 1, {"rewards/mean": 9.0}, policy)  # a step without an evaluation
    best.restore(policy)
    return best.step, policy.table[0].item(), best.within_kl_bound


def test_the_last_weights_are_kept_with_select_last():
    assert chosen() == (None, 40.0, False)


@pytest.mark.parametrize(
    ("settings", "step", "within"),
    [
        ({"select": "perplexity"}, 20, True),
        ({"select": "perplexity", "max_kl": 1.0}, 30, True),  # of two equals the first
        ({"select": "avg_reward"}, 40, True),
        ({"select": "avg_reward", "max_kl": 0.6}, 10, True),
        ({"select": "avg_reward", "max_kl": 0.1}, 10, False),  # none is near enough: the nearest
    ],
)
def test_weights_are_selected_by_the_kl_bound_then_by_the_metric(settings, step, within):
    assert chosen(**settings) == (step, float(step), within)


def test_a_checkpoint_holds_the_best_weights(tmp_path):
    policy, best = Weights(), BestWeights(Evaluate(select="avg_reward"))
    policy.table = torch.ones(2)
    best.update(30, numbers(30), policy)
    torch.save(best.state(), tmp_path / "best")
    again = BestWeights(Evaluate(select="avg_reward"))
    again.load(torch.load(tmp_path / "best", weights_only=True))
    again.update(10, numbers(10), policy)
    assert again.step == 30
    again.update(40, numbers(40), policy)
    assert again.step == 40


def test_a_metric_that_is_not_measured_is_named():
    with pytest.raises(UserError, match=r"eval\.select=accuracy.*available: avg_reward, kl_token, perplexity"):
        rank_weights(numbers(10), Evaluate(select="accuracy"))


@pytest.mark.parametrize("settings", [{"max_kl": 1.0}, {"select": "perplexity", "perplexity_rows": 0}])
def test_settings_without_effect_are_an_error(settings):
    with pytest.raises(UserError):
        Evaluate(**settings)
