"""The simulations of docs/statistics_simulated.md with fewer studies: enough to notice a wrong interval."""

from pathlib import Path

import numpy as np
import pytest

from validation.simulations import __main__ as honesty
from validation.simulations import judged, prompts, seeds, verdicts

REPEATS = 3000
"""At 95% the standard error is 0.4 points, so the bounds below are five of them away."""


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize(("name", "cover", "why"), honesty.OVER_SEEDS, ids=[row[0] for row in honesty.OVER_SEEDS])
def test_intervals_hold_for_normal_numbers(name, cover, why, rng) -> None:
    """5 + 5 seeds. What is shown as a warning in the table must fail here too."""
    share = cover(seeds.normal(rng), REPEATS, 5).percent
    if name.startswith("not printed"):
        assert share < 94
    else:
        assert 93 < share < (99 if name.startswith("d_av") else 97.5)


def test_few_skewed_numbers_are_a_limit_that_the_table_names(rng) -> None:
    assert seeds.mean(seeds.skewed(rng), REPEATS, 3).percent < 93


@pytest.mark.parametrize("world", prompts.WORLDS, ids=lambda world: world.name)
def test_seeds_and_prompts_together(world, rng) -> None:
    found = prompts.coverage(world, 1500, 3, 100, rng)
    assert 92.5 < found["both"] < 97.8
    assert min(found["new seeds"], found["new prompts"]) < 92.5, "neither alone speaks for both"


def test_a_method_against_itself_is_rarely_called_better(rng) -> None:
    for draw in (seeds.normal(rng), seeds.skewed(rng), verdicts.accuracies(rng)):
        assert verdicts.false_alarms(draw, REPEATS, 3) < 5.5
    assert verdicts.false_alarms(seeds.normal(rng), REPEATS, 5, methods=4) < 5.5
    assert verdicts.false_equivalence(seeds.normal(rng), REPEATS, 5, 2.0) < 6


def test_power_is_that_of_the_test_that_decides(rng) -> None:
    found, student = verdicts.found(seeds.normal(rng), REPEATS, 3, 3.07)
    assert found == pytest.approx(100 * honesty.welch_power(3.07, 3, 3), abs=4)
    assert found < student - 5


def test_both_orders_hold_where_one_fails(rng) -> None:
    found = judged.judged(*judged.CONTESTS["likes what is first, equal methods"], 250, rng)
    assert found.mean_of_orders.held > 89
    assert found.one_order.held < 10
    assert found.one_order.mean > 58 > 52 > found.strict.mean


def test_a_liking_for_length_shows_only_at_equal_length(rng) -> None:
    found = judged.judged(*judged.CONTESTS["likes length, the better method writes longer"], 160, rng)
    assert found.strict.held < 50
    assert found.equal_length is not None
    assert found.equal_length.held > 80


def test_the_committed_table_has_every_row() -> None:
    text = (Path(__file__).parents[2] / "docs" / "statistics_simulated.md").read_text()
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    assert {name for name, _, _ in honesty.OVER_SEEDS} | set(judged.CONTESTS) <= set(rows)
    assert f"{honesty.REPEATS:,} simulated studies" in text


def test_a_number_outside_is_bold_and_explained() -> None:
    rows = [(["good", honesty.cell(95.9)], "x"), (["bad", honesty.cell(91.0)], "why")]
    shown = honesty.with_reasons(["interval", "3+3"], rows)
    assert "| good | 95.9 |" in shown
    assert "| bad | **91.0** |" in shown
    assert "- bad: why." in shown
    assert "- good" not in shown
