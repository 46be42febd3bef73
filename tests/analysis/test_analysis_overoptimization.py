"""Detection of over-optimization: gold falls significantly and by a relevant amount while the proxy rises."""

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


def analyze(golds, proxies, margin=None, kls=None):
    (finding,) = find_overoptimization(study_of(golds, proxies, kls), margin)
    return finding


RISING = [[0, 1, 2, 3]] * 3


def test_each_seed_is_measured_at_the_peak_of_the_others():
    finding = analyze([[0, 4, 1, 0], [0, 1, 4, 0], [0, 1, 5, 1]], RISING, kls=[0, 1, 3, 6])
    assert [seed.step for seed in finding.seeds] == [20, 20, 10]  # sums of the others: 2, 9 / 5, 6 / 5, 5 (the first)
    assert [seed.fall for seed in finding.seeds] == [
        1,
        4,
        0,
    ]  # not 4, 4, 4, which the peaks of the seeds themselves would give
    assert [seed.rise for seed in finding.seeds] == [1, 1, 2]
    assert finding.fall.value == pytest.approx(5 / 3)
    assert (finding.peak.step, finding.peak.kl, finding.peak.gold) == (20, 3, pytest.approx(10 / 3))
    assert finding.state == "no clear fall"


def test_over_optimization_is_a_significant_relevant_fall_while_the_proxy_rises():
    golds = [[-1, 1, 0, -1], [-1, 1.2, 0, -0.9], [-1, 0.8, 0, -1.1]]
    finding = analyze(golds, RISING, kls=[0, 2, 5, 9])
    assert finding.state == "over-optimized"
    assert finding.affected == 3
    assert finding.fall.value == pytest.approx(2.0)
    # falls 2.0, 2.1, 1.9: sd 0.1, half width 4.3027 * 0.1 / sqrt(3) = 0.248
    assert (finding.fall.low, finding.fall.high) == pytest.approx((1.752, 2.248), abs=1e-3)
    assert format_overoptimization(finding) == (
        "GRPO over-optimized the reward: gold peaked at 1.00 (step 10, KL 2.00) and ended at \u22121.00, while the "
        "proxy rose from 1.00 to 3.00. The fall of 2.00 (95% CI 1.75 to 2.25) occurs on 3 of 3 seeds."
    )


def test_one_large_fall_does_not_hide_that_all_seeds_fell():
    golds = [[-1, 1, 0, -1.2], [-1, 1.2, 0, -0.9], [-1, 0.8, 0, -19]]
    finding = analyze(golds, RISING)
    assert finding.fall.low < 0  # falls 2.2, 2.1, 19.8
    assert (finding.capped_fall.value, finding.lost_all) == (pytest.approx(2.0), 3)  # capped at the gain of 2
    assert finding.state == "over-optimized"
    assert format_overoptimization(finding).endswith(
        "occurs on 3 of 3 seeds: seeds fell by 2.10 to 19.80, 3 of 3 by at least the mean gain."
    )


def test_the_fall_is_not_capped_if_the_gain_is_not_significant():
    golds = [[0, 0.5, 0.2], [0, 0.4, 0.1], [0, -0.6, -9]]
    finding = analyze(golds, [[0, 1, 2]] * 3)
    assert finding.capped_fall == finding.fall
    assert finding.state == "no clear fall"


def test_false_positive_rate_on_noise():
    noise = np.random.default_rng(0).normal(size=(400, 3, 7))
    found = [analyze(golds, [range(7)] * 3).state for golds in noise]
    assert found.count("over-optimized") <= 28  # of 3,000 such studies 4.3 %, so about 17; four standard errors above


def test_a_falling_proxy_is_a_collapse():
    finding = analyze([[-1, 1, -1], [-1, 1.2, -0.9], [-1, 0.8, -1.1]], [[0, 3, 1]] * 3)
    assert finding.state == "both fell"
    assert format_overoptimization(finding).startswith(
        "GRPO collapsed: gold peaked at 1.00 (step 10) and ended at \u22121.00, and the proxy went from 3.00 to 1.00."
    )


def test_a_small_fall_is_relevant_only_with_a_margin():
    golds = [[-1, 1, 0.89], [-1, 1.1, 1.0], [-1, 0.9, 0.78]]  # falls 0.11, 0.10, 0.12 of a gain of 2: a twentieth
    kept = analyze(golds, [[0, 1, 2]] * 3)
    assert kept.fall.low > 0
    assert kept.relevant_fall == pytest.approx(0.5)
    assert kept.state == "no clear fall"
    assert (
        "The fall of 0.11 (95% CI 0.09 to 0.13) is less than the 0.50 considered relevant."
        in format_overoptimization(kept)
    )
    assert analyze(golds, [[0, 1, 2]] * 3, margin=0.05).state == "over-optimized"


def test_the_best_step_at_the_end_is_no_over_optimization():
    finding = analyze([[-1, 0, 1], [-1, 0.1, 1.1], [-1, 0, 0.9]], [[0, 1, 2]] * 3, kls=[0, 1, 2])
    assert finding.state == "best at the end"
    assert format_overoptimization(finding) == (
        "GRPO did not over-optimize: gold was highest at the end (from \u22121.00 to 1.00, step 20, KL 2.00)."
    )


def test_one_seed_allows_no_conclusion():
    finding = analyze([[-1, 1, -1]], [[0, 1, 2]])
    assert finding.state == "one seed"
    assert "One seed cannot show whether this exceeds chance." in format_overoptimization(finding)
    assert analyze([[-1, 0, 1]], [[0, 1, 2]]).state == "best at the end"


def test_a_run_that_stopped_early_is_measured_at_its_own_end():
    study = study_of([[-1, 1, 0, -1]] * 2 + [[-1, 1, 0]], [[0, 1, 2, 3]] * 2 + [[0, 1, 2]])
    (finding,) = find_overoptimization(study, None)
    assert [seed.gold[2] for seed in finding.seeds] == [-1, -1, 0]
    assert finding.end.gold == pytest.approx(-2 / 3)


def test_non_finite_values_and_runs_without_gold_are_excluded():
    nan = float("nan")
    assert analyze([[-1, 1, nan, -1], [-1, 1, 0, -1]], [[0, 1, 2, 3]] * 2).peak.step == 10
    assert find_overoptimization(study_of([[nan, nan]], [[1, 2]]), None) == ()


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_false_positive_rate_by_number_of_seeds(seeds):
    """Constant gold with noise: every detection is a false positive. The naive fall from each seed's own peak is
    significant far more often."""
    rng = np.random.default_rng(7)
    alarms = naive = 0
    for _ in range(200):
        golds = rng.normal(0, 1, (seeds, 12))
        alarms += analyze(golds, [list(range(12))] * seeds).state == "over-optimized"
        falls = golds.max(1) - golds[:, -1]
        naive += falls.mean() > {2: 12.706, 3: 4.303, 5: 2.776}[seeds] * falls.std(ddof=1) / np.sqrt(seeds)
    assert alarms <= 0.08 * 200
    assert seeds < 3 or naive > 2 * alarms
