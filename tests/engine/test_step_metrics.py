"""The metrics of a step against values computed by hand."""

import math

import pytest
import torch

from alignbench.core.batches import Experience, Forward, Scored
from alignbench.engine import step_metrics
from alignbench.engine.token_metrics import TokenMeans, token_metrics

MASK = torch.tensor([[True, True, False], [True, False, False], [True, True, True], [True, True, False]])


def scored(scores=(1.0, 0.0, 2.0, 2.0), group=(0, 0, 7, 7), **changes) -> Scored:
    old = torch.tensor([[-1.0, -2.0, 0.0], [-1.0, 0.0, 0.0], [-0.5, -0.5, -1.0], [-1.0, -1.0, 0.0]])
    fields = {
        "logprobs": old,
        "old_logprobs": old,
        "ref_logprobs": torch.where(MASK, old - 0.25, 0.0),
        "scores": torch.tensor(scores),
        "group": torch.tensor(group),
        "truncated": torch.tensor([False, False, True, False]),
        **changes,
    }
    return Scored(
        prompts=torch.ones(4, 1, dtype=torch.long),
        prompt_lengths=torch.ones(4, dtype=torch.long),
        responses=torch.ones(4, 3, dtype=torch.long),
        mask=MASK,
        texts=("",) * 4,
        rows=({"id": 0},) * 4,
        **fields,
    )


def test_rewards_by_hand():
    found = step_metrics.rewards(scored(components={"half": torch.tensor([0.5, 0.0, 1.0, 1.0])}))
    assert found == pytest.approx(
        {
            "rewards/mean": 1.25,
            "rewards/std": 0.6875**0.5,
            "rewards/max": 2.0,
            "rewards/min": 0.0,
            "rewards/median": 1.5,
            "rewards/q25": 0.75,
            "rewards/q75": 2.0,
            "rewards/component/half": 0.625,
        }
    )


def test_groups_without_a_signal_are_counted():
    assert step_metrics.groups(scored()) == {
        "group_stats/num_groups": 2.0,
        "group_stats/avg_group_size": 2.0,
        "group_stats/no_signal_fraction": 0.5,
    }


def test_groups_are_identified_by_number_not_by_position():
    mixed = scored(scores=(1.0, 2.0, 1.0, 2.0), group=(3, 5, 3, 5))
    assert step_metrics.groups(mixed)["group_stats/no_signal_fraction"] == 1.0
    assert step_metrics.all_equal(mixed)


@pytest.mark.parametrize(
    ("scores", "group", "silent"),
    [
        ((1.0, 1.0, 1.0, 1.0), (0, 0, 1, 1), True),
        ((1.0, 1.0, 0.0, 0.0), (0, 0, 1, 1), True),
        ((1.0, 0.0, 1.0, 1.0), (0, 0, 1, 1), False),
        ((1.0, 1.0, 1.0, 1.0), (0, 1, 2, 3), True),
        ((1.0, 1.0, 0.0, 1.0), (0, 1, 2, 3), False),
    ],
)
def test_a_step_has_no_signal_when_all_scores_of_each_group_are_equal(scores, group, silent):
    assert step_metrics.all_equal(scored(scores=scores, group=group)) == silent


def test_lengths_and_kl_by_hand():
    sampled = scored().old_logprobs.clone()
    sampled[2, 1] += 0.125
    found = step_metrics.rollouts(scored(logprobs=sampled))
    assert found == pytest.approx(
        {
            "rollout/response_length": 2.0,
            "rollout/truncated_fraction": 0.25,
            "rollout/kl_sequence": 0.25 * 8 / 4,
            "rollout/kl_token": 0.25,
            "rollout/sampler_gap": 0.125,
            "rollout/effective_share": (7 + math.exp(-0.125)) ** 2 / (8 * (7 + math.exp(-0.25))),
        }
    )


def test_explained_variance_of_a_critic():
    values = torch.tensor([[1.0, 2.0, 9.0], [3.0, 9.0, 9.0], [0.0, 0.0, 0.0], [0.0, 0.0, 9.0]])
    returns = torch.where(MASK, 2 * values, -5.0)
    found = step_metrics.critic(scored(values=values).widen(Experience, advantages=values, returns=returns))
    # The residual is the value itself: its variance is a quarter of that of the returns.
    assert found == pytest.approx({"train/value_mean": 0.75, "train/explained_variance": 0.75})
    level = torch.where(MASK, 4.0, 0.0)
    found = step_metrics.critic(scored(values=values).widen(Experience, advantages=values, returns=level))
    assert found["train/explained_variance"] == 0.0
    assert step_metrics.critic(scored().widen(Experience, advantages=values)) == {}


def test_token_means_are_those_of_all_tokens_at_once():
    draw = torch.Generator().manual_seed(0)
    values, mask = torch.randn(6, 4, generator=draw), torch.rand(6, 4, generator=draw) > 0.4
    means = TokenMeans()
    for rows in (slice(0, 1), slice(1, 4), slice(4, 6)):
        means.add(mask[rows], x=torch.where(mask, values, 1e9)[rows])
    assert means.mean("x") == pytest.approx(values[mask].mean().item(), rel=1e-6)
    assert means.std("x") == pytest.approx(values[mask].std(correction=0).item(), rel=1e-6)


def test_token_means_of_nothing_are_zero():
    means = TokenMeans()
    assert means.mean("x") == 0.0
    means.add(torch.zeros(2, 2, dtype=torch.bool), x=torch.ones(2, 2))
    assert (means.mean("x"), means.std("x")) == (0.0, 0.0)


def test_ratio_and_divergences_of_each_token():
    batch = scored().widen(Experience, advantages=torch.ones(4, 3))
    now = Forward(logprobs=batch.old_logprobs + math.log(2), entropy=torch.full((4, 3), 0.3))
    shown = token_metrics(now, batch)
    assert set(shown) == {"ratio", "kl", "kl_to_old", "entropy", "advantages"}
    torch.testing.assert_close(shown["ratio"], torch.full((4, 3), 2.0))
    torch.testing.assert_close(shown["kl_to_old"], torch.full((4, 3), 1 - math.log(2)))
    further = math.log(2) + 0.25
    torch.testing.assert_close(shown["kl"][MASK], torch.full((8,), math.exp(-further) - 1 + further))
