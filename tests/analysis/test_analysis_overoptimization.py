"""When a method has over-optimized its reward: gold falls clearly, by enough, while the proxy rises."""

from pathlib import Path

import numpy as np
import pytest

from analysis.study.load import Run, Study
from analysis.study.mlflow_reader import Curve
from analysis.validity.overoptimization import find_overoptimization
from analysis.validity.reward_hacking import format_overoptimization


def curve(values, every=10):
    return Curve(tuple(range(0, every * len(values), every)), tuple(map(float, values)))


def study_of(golds, proxies, kls=None):
    """One method whose runs have these curves, a row for each seed."""
    runs = [
        Run(
            method="grpo",
            model="tiny",
            seed=seed,
            key=str(seed),
            folder="runs/s",
            status="finished",
            reason=None,
            curves={"eval/gold": curve(gold), "eval/avg_reward": curve(proxy)}
            | ({"eval/kl": curve(kls)} if kls else {}),
        )
        for seed, (gold, proxy) in enumerate(zip(golds, proxies, strict=True))
    ]
    return Study(name="s", output_dir=Path(), runs=tuple(runs), notes=(), planned=True)


def judged(golds, proxies, margin=None, kls=None):
    (finding,) = find_overoptimization(study_of(golds, proxies, kls), margin)
    return finding


RISING = [[0, 1, 2, 3]] * 3


def test_each_seed_is_measured_where_the_others_peak():
    finding = judged([[0, 4, 1, 0], [0, 1, 4, 0], [0, 1, 5, 1]], RISING, kls=[0, 1, 3, 6])
    assert [seed.step for seed in finding.seeds] == [20, 20, 10]  # sums of the others: 2, 9 / 5, 6 / 5, 5 (the first)
    assert [seed.fall for seed in finding.seeds] == [1, 4, 0]  # not 4, 4, 4: the luck of a seed's own peak is left out
    assert [seed.rise for seed in finding.seeds] == [1, 1, 2]
    assert finding.fall.value == pytest.approx(5 / 3)
    assert (finding.peak.step, finding.peak.kl, finding.peak.gold) == (20, 3, pytest.approx(10 / 3))
    assert finding.state == "no clear fall"


def test_over_optimized_is_a_clear_fall_that_matters_while_the_proxy_rises():
    golds = [[-1, 1, 0, -1], [-1, 1.2, 0, -0.9], [-1, 0.8, 0, -1.1]]
    finding = judged(golds, RISING, kls=[0, 2, 5, 9])
    assert finding.state == "over-optimized"
    assert finding.affected == 3
    assert finding.fall.value == pytest.approx(2.0)
    # falls 2.0, 2.1, 1.9: sd 0.1, half width 4.3027 * 0.1 / sqrt(3) = 0.248
    assert (finding.fall.low, finding.fall.high) == pytest.approx((1.752, 2.248), abs=1e-3)
    assert format_overoptimization(finding) == (
        "GRPO over-optimized the reward: gold peaked at 1.00 (step 10, KL 2.00) and ended at \u22121.00, while the "
        "proxy rose from 1.00 to 3.00. The fall, 2.00 (95% CI 1.75 to 2.25), shows on 3 of 3 seeds."
    )


def test_a_seed_that_fell_much_further_does_not_hide_that_all_fell():
    golds = [[-1, 1, 0, -1.2], [-1, 1.2, 0, -0.9], [-1, 0.8, 0, -19]]
    finding = judged(golds, RISING)
    assert finding.fall.low < 0  # falls 2.2, 2.1, 19.8
    assert (finding.capped_fall.value, finding.lost_all) == (pytest.approx(2.0), 3)  # the gain of 2 at most
    assert finding.state == "over-optimized"
    assert format_overoptimization(finding).endswith(
        "shows on 3 of 3 seeds: seeds fell by 2.10 to 19.80, 3 of 3 by all that had been gained or more."
    )


def test_a_fall_counts_whole_where_the_gain_may_be_chance():
    golds = [[0, 0.5, 0.2], [0, 0.4, 0.1], [0, -0.6, -9]]
    finding = judged(golds, [[0, 1, 2]] * 3)
    assert finding.capped_fall == finding.fall
    assert finding.state == "no clear fall"


def test_noise_is_seldom_called_a_fall():
    noise = np.random.default_rng(0).normal(size=(400, 3, 7))
    found = [judged(golds, [range(7)] * 3).state for golds in noise]
    assert found.count("over-optimized") <= 28  # of 3,000 such studies 4.3 %, so about 17; four standard errors above


def test_a_proxy_that_falls_as_well_is_a_breakdown():
    finding = judged([[-1, 1, -1], [-1, 1.2, -0.9], [-1, 0.8, -1.1]], [[0, 3, 1]] * 3)
    assert finding.state == "both fell"
    assert format_overoptimization(finding).startswith(
        "GRPO broke down: gold peaked at 1.00 (step 10) and ended at \u22121.00, and the proxy went from 3.00 to 1.00."
    )


def test_a_small_fall_does_not_matter_unless_a_margin_says_so():
    golds = [[-1, 1, 0.89], [-1, 1.1, 1.0], [-1, 0.9, 0.78]]  # falls 0.11, 0.10, 0.12 of a gain of 2: a twentieth
    kept = judged(golds, [[0, 1, 2]] * 3)
    assert kept.fall.low > 0
    assert kept.relevant_fall == pytest.approx(0.5)
    assert kept.state == "no clear fall"
    assert "The fall, 0.11 (95% CI 0.09 to 0.13), is less than the 0.50 that would matter." in format_overoptimization(
        kept
    )
    assert judged(golds, [[0, 1, 2]] * 3, margin=0.05).state == "over-optimized"


def test_a_method_that_ends_at_its_best_did_not_over_optimize():
    finding = judged([[-1, 0, 1], [-1, 0.1, 1.1], [-1, 0, 0.9]], [[0, 1, 2]] * 3, kls=[0, 1, 2])
    assert finding.state == "best at the end"
    assert format_overoptimization(finding) == (
        "GRPO did not over-optimize: gold was highest at the end (from \u22121.00 to 1.00, step 20, KL 2.00)."
    )


def test_one_seed_decides_nothing():
    finding = judged([[-1, 1, -1]], [[0, 1, 2]])
    assert finding.state == "one seed"
    assert "One run cannot say whether that is more than chance." in format_overoptimization(finding)
    assert judged([[-1, 0, 1]], [[0, 1, 2]]).state == "best at the end"


def test_a_run_that_stopped_early_is_measured_at_its_own_end():
    study = study_of([[-1, 1, 0, -1]] * 2 + [[-1, 1, 0]], [[0, 1, 2, 3]] * 2 + [[0, 1, 2]])
    (finding,) = find_overoptimization(study, None)
    assert [seed.gold[2] for seed in finding.seeds] == [-1, -1, 0]
    assert finding.end.gold == pytest.approx(-2 / 3)


def test_numbers_that_are_not_finite_and_runs_without_gold_are_left_out():
    nan = float("nan")
    assert judged([[-1, 1, nan, -1], [-1, 1, 0, -1]], [[0, 1, 2, 3]] * 2).peak.step == 10
    assert find_overoptimization(study_of([[nan, nan]], [[1, 2]]), None) == ()


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_noise_is_seldom_called_over_optimization(seeds):
    """Gold that stays where it is, with noise: calling it a fall is a false alarm. The naive fall from the own peak is
    called clear far more often."""
    rng = np.random.default_rng(7)
    alarms = naive = 0
    for _ in range(200):
        golds = rng.normal(0, 1, (seeds, 12))
        alarms += judged(golds, [list(range(12))] * seeds).state == "over-optimized"
        falls = golds.max(1) - golds[:, -1]
        naive += falls.mean() > {2: 12.706, 3: 4.303, 5: 2.776}[seeds] * falls.std(ddof=1) / np.sqrt(seeds)
    assert alarms <= 0.08 * 200
    assert seeds < 3 or naive > 2 * alarms
