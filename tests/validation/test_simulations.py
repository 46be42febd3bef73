"""The simulations of docs/statistics_simulated.md with fewer studies: enough to notice a wrong interval."""

from pathlib import Path

import numpy as np
import pytest

from validation.simulations import __main__ as page
from validation.simulations import judge_scores, seeds, seeds_and_prompts, verdicts

REPEATS = 3000
"""At 95% the standard error is 0.4 points, so the bounds below are five of them away."""


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize(("name", "simulate", "reason"), page.OVER_SEEDS, ids=[row[0] for row in page.OVER_SEEDS])
def test_intervals_cover_the_truth_for_normal_numbers(name, simulate, reason, rng) -> None:
    """5 + 5 seeds. The interval that the report does not use must fail here too."""
    share = simulate(seeds.normal(rng), REPEATS, 5).percent
    if name.startswith("not used"):
        assert share < 94
    else:
        assert 93 < share < (99 if name.startswith("d_av") else 97.5)


def test_mean_of_few_skewed_numbers_has_low_coverage(rng) -> None:
    assert seeds.mean(seeds.skewed(rng), REPEATS, 3).percent < 93


@pytest.mark.parametrize("case", seeds_and_prompts.CASES, ids=lambda case: case.name)
def test_interval_for_new_seeds_and_prompts_covers_the_truth(case, rng) -> None:
    coverage = seeds_and_prompts.coverage(case, 1500, 3, 100, rng)
    assert 92.5 < coverage["both"] < 97.8
    assert min(coverage["new seeds"], coverage["new prompts"]) < 92.5, "neither interval alone covers the overall truth"


def test_method_compared_with_itself_is_rarely_called_better(rng) -> None:
    for sampler in (seeds.normal(rng), seeds.skewed(rng), verdicts.accuracies(rng)):
        assert verdicts.false_alarms(sampler, REPEATS, 3) < 5.5
    assert verdicts.false_alarms(seeds.normal(rng), REPEATS, 5, methods=4) < 5.5
    assert verdicts.false_equivalence(seeds.normal(rng), REPEATS, 5, 2.0) < 6


def test_detection_rate_is_the_power_of_the_test_that_decides(rng) -> None:
    detected, student = verdicts.detection_rate(seeds.normal(rng), REPEATS, 3, 3.07)
    assert detected == pytest.approx(100 * page.welch_power(3.07, 3, 3), abs=4)
    assert detected < student - 5


def test_scores_from_both_orders_cover_the_truth_where_one_order_fails(rng) -> None:
    result = judge_scores.simulate_scores(*judge_scores.CASES["prefers the first, equal methods"], 250, rng)
    assert result.mean_of_orders.coverage > 89
    assert result.one_order.coverage < 10
    assert result.one_order.mean > 58 > 52 > result.strict.mean


def test_verbosity_bias_is_corrected_only_at_equal_length(rng) -> None:
    case = judge_scores.CASES["prefers longer answers, the better method's are longer"]
    result = judge_scores.simulate_scores(*case, 160, rng)
    assert result.strict.coverage < 50
    assert result.equal_length is not None
    assert result.equal_length.coverage > 80


def test_committed_page_has_every_row() -> None:
    text = (Path(__file__).parents[2] / "docs" / "statistics_simulated.md").read_text()
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    assert {name for name, _, _ in page.OVER_SEEDS} | set(judge_scores.CASES) <= set(rows)
    assert f"{page.REPEATS:,} simulated studies" in text


def test_number_outside_the_target_is_bold_with_its_reason() -> None:
    rows = [(["good", page.cell(95.9)], "x"), (["bad", page.cell(91.0)], "why")]
    text = page.with_reasons(["interval", "3+3"], rows)
    assert "| good | 95.9 |" in text
    assert "| bad | **91.0** |" in text
    assert "- bad: why." in text
    assert "- good" not in text
