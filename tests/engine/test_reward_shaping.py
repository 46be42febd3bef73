"""Reward shaping: score normalization and the penalty for truncated responses."""

from dataclasses import replace

import pytest
import torch
from bigram import METHODS, Stream, engine, start

from alignbench.algorithms.kl import PhasedKL
from alignbench.algorithms.normalizer import EMA
from alignbench.core.protocols import RunningStats
from alignbench.engine.reward_shaping import shape_rewards
from alignbench.engine.rl_loop import RLLoop


def steps(running: RLLoop, count: int, state=None) -> list:
    reports = running.run(Stream(), state or start(running.algorithm))
    return [next(reports) for _ in range(count)]


@pytest.fixture
def drawn():
    return steps(engine(METHODS["GRPO"]()), 1)[0].scored


def test_the_penalty_is_subtracted_from_truncated_rollouts_only(drawn):
    assert 0 < drawn.truncated.sum() < len(drawn)
    out, moments = shape_rewards(drawn, None, None, 2.5)
    assert torch.equal(drawn.scores - out.scores, torch.where(drawn.truncated, 2.5, 0.0))
    assert moments is None
    assert torch.equal(out.components["missing_eos"], torch.where(drawn.truncated, -2.5, 0.0))
    assert torch.equal(out.components["hits"], drawn.components["hits"])
    assert shape_rewards(drawn, None, None, 0.0)[0].components == drawn.components


def test_the_penalty_is_on_the_normalized_scale(drawn):
    out, moments = shape_rewards(drawn, EMA(), RunningStats(mean=1.0, std=4.0), 0.5)
    expected = (drawn.scores - 1) / 4 - 0.5 * drawn.truncated
    torch.testing.assert_close(out.scores, expected.float())
    assert moments == EMA()(drawn.scores, RunningStats(mean=1.0, std=4.0))[1]


@pytest.mark.parametrize("method", METHODS)
def test_a_run_trains_on_normalized_scores_and_logs_the_raw_ones(method):
    algorithm = METHODS[method](normalizer=EMA(alpha=0.5))
    first, second = steps(engine(algorithm), 2)
    plain = steps(engine(METHODS[method]()), 1)[0]
    assert first.metrics["rewards/mean"] == plain.metrics["rewards/mean"]
    assert first.metrics["train/score_mean"] == pytest.approx(0, abs=1e-6)
    assert first.metrics["train/score_std"] == pytest.approx(1, abs=1e-5)
    assert first.state.score_stats.mean == pytest.approx(first.metrics["rewards/mean"])
    assert second.metrics["train/score_mean"] == pytest.approx(
        (second.metrics["rewards/mean"] - first.state.score_stats.mean) / first.state.score_stats.std, abs=1e-5
    )


def test_the_learning_rate_follows_the_controller():
    kl = PhasedKL(values=(1e-9,), boundaries=(), action="lr", coef=0.0, unit="per_sequence")
    algorithm = METHODS["GRPO"](kl=kl)
    shown = [r.metrics["train/learning_rate"] for r in steps(engine(algorithm, rate=0.05), 4)]
    assert shown == pytest.approx([0.05, 0.05, 0.025, 0.0125])  # the KL of the first step is zero


def test_the_controller_can_stop_the_run():
    kl = PhasedKL(values=(1e-9,), boundaries=(), action="stop", coef=0.0, unit="per_sequence")
    reports = steps(engine(METHODS["GRPO"](kl=kl)), 2)
    assert [r.state.kl_control.stop for r in reports] == [False, True]


def test_phases_are_fractions_of_the_run():
    kl = PhasedKL(values=(0.3, 0.1), boundaries=(0.5,))
    shown = [r.metrics["train/kl_coef"] for r in steps(engine(METHODS["PPO"](kl=kl), steps=4), 4)]
    assert shown == [0.3, 0.3, 0.1, 0.1]


def test_the_state_is_restored_as_it_was_saved():
    state = steps(engine(METHODS["GRPO"](normalizer=EMA(), kl=PhasedKL())), 1)[0].state
    assert type(state).from_dict(state.as_dict()) == state
    assert type(state).from_dict(replace(state, score_stats=None).as_dict()).score_stats is None
