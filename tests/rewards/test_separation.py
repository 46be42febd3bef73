"""The AUC by hand, and intervals that hold the truth as often as they say."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

from alignbench.core import metric_names
from alignbench.core.batches import Scored
from alignbench.engine import step_metrics
from alignbench.rewards.separation import compute_separation


def names(n):
    return [str(i) for i in range(n)]


@pytest.fixture
def of_a_step(rollouts_for):
    def make(scores, **components):
        rollouts = rollouts_for(names(len(scores)), [{"id": i} for i in names(len(scores))])
        return rollouts.widen(
            Scored,
            scores=torch.tensor(scores, dtype=torch.float32),
            components=components,
            old_logprobs=rollouts.logprobs,
            ref_logprobs=rollouts.logprobs,
        )

    return make


@pytest.mark.parametrize(
    ("scores", "right", "auc"),
    [
        ([1, 2], [0, 1], 1.0),
        ([2, 1], [0, 1], 0.0),
        ([1, 1], [0, 1], 0.5),
        ([1, 2, 3, 4], [0, 1, 0, 1], 0.75),
        ([1, 2, 2, 3], [0, 0, 1, 1], 0.875),
        ([5, 1, 2, 2, 0], [1, 1, 0, 0, 0], 4 / 6),
    ],
)
def test_the_auc_is_the_fraction_of_correctly_ordered_pairs(of_a_step, scores, right, auc):
    found = compute_separation(scores, [bool(r) for r in right], names(len(scores)))
    assert found.auc == pytest.approx(auc)
    assert 0 <= found.low <= auc <= found.high <= 1
    step = of_a_step(scores, correct_strict=torch.tensor(right).float())
    assert step_metrics.separation(step) == {metric_names.SEPARATION: pytest.approx(auc)}
    assert step_metrics.separation in step_metrics.ROLLOUT_METRICS


def test_no_auc_for_answers_of_one_kind_or_for_correctness_as_reward(of_a_step):
    assert compute_separation([1, 2], [True, True], names(2)) is None
    assert compute_separation([1, 2], [False, False], names(2)) is None
    for components in ({}, {"correct_strict": torch.ones(2)}, {"correct_strict": torch.tensor([0.0, 1.0])}):
        assert step_metrics.separation(of_a_step([0.0, 1.0], **components)) == {}


def test_a_few_answers_in_perfect_order_are_no_proof():
    few, many = (compute_separation([0] * n + [1] * n, [False] * n + [True] * n, names(2 * n)) for n in (3, 300))
    assert few.low < 0.5 < 0.98 < many.low


@pytest.mark.parametrize("alike", [0.0, 2.0])
def test_nineteen_of_twenty_intervals_hold_the_truth_also_when_answers_to_a_prompt_are_alike(alike):
    rng, shift, held = np.random.default_rng(0), 1.0, 0
    prompts = [str(i) for i in range(60) for _ in range(4)]
    truth = norm.cdf(shift / np.sqrt(2 * (1 + alike**2)))
    for _ in range(400):
        right = rng.random(240) < 0.4
        scores = rng.normal(size=240) + shift * right + alike * np.repeat(rng.normal(size=60), 4)
        found = compute_separation(scores, right, prompts)
        held += found.low <= truth <= found.high
    assert 0.92 < held / 400 < 0.98
