"""Proportions, Glass's delta and the trimmed mean: by hand, and against other libraries."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from analysis import statistics


def test_wilson_by_hand():
    """5 of 10 with z = 1.96: centre 0.5, half width 1.96 sqrt(0.025 + 1.96^2 / 400) / (1 + 1.96^2 / 10)."""
    z = stats.norm.ppf(0.975)
    interval = statistics.wilson(5, 10)
    assert interval.value == 0.5
    assert interval.high - 0.5 == pytest.approx(z * sqrt(0.025 + z**2 / 400) / (1 + z**2 / 10))
    assert statistics.wilson(0, 0).reason == "n<1"


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, 2 * n), st.just(n))))
def test_wilson_agrees_with_another_library_and_stays_within_0_and_1(tally):
    halves, trials = tally
    interval = statistics.wilson(halves / 2, trials)
    assert (interval.low, interval.high) == pytest.approx(proportion_confint(halves / 2, trials, method="wilson"))
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


def test_mcnemar_by_hand():
    """Of 6 discordant prompts 1 to one side: 2 (1 + 6) / 64."""
    test = statistics.mcnemar(1, 5)
    assert test.p == pytest.approx(14 / 64)
    assert statistics.mcnemar(31, 22).p == pytest.approx(mcnemar([[9, 31], [22, 9]], exact=True).pvalue)
    assert (statistics.mcnemar(0, 0).p, statistics.mcnemar(0, 0).reason) == (None, "no_disagreement")


def test_glass_delta_by_hand():
    """Means 5 and 2, sd of the second 1: delta 3; the noncentrality has 2 degrees of freedom."""
    x, y = [1.0, 5.0, 9.0], [1.0, 2.0, 3.0]
    delta, t = statistics.glass_delta(x, y), statistics.welch(x, y).t
    scale = sqrt(16 / 3 + 1 / 3)
    assert delta.value == pytest.approx(3)
    assert t == pytest.approx(3 / scale)
    assert stats.nct.cdf(t, 2, delta.low / scale) == pytest.approx(0.975, abs=1e-8)
    assert stats.nct.cdf(t, 2, delta.high / scale) == pytest.approx(0.025, abs=1e-8)


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ([1.0, 2.0], [0.1, 0.1, 0.1], "zero_baseline_variance"),
        ([0.1] * 3, [0.2] * 3, "zero_pooled_variance"),
        ([1.0], [1.0, 2.0], "n<2"),
    ],
)
def test_glass_delta_needs_variance_of_the_baseline(x, y, reason):
    delta = statistics.glass_delta(x, y)
    assert (delta.value, delta.low, delta.reason) == (None, None, reason)


def test_probability_that_the_difference_is_above_zero():
    """One side of the two-sided p."""
    test = statistics.welch([3.0, 4.0, 5.0], [1.0, 2.0, 3.0])
    assert test.probability_above_zero == pytest.approx(1 - test.p / 2)
    assert statistics.welch([1.0, 2.0, 3.0], [3.0, 4.0, 5.0]).probability_above_zero == pytest.approx(test.p / 2)
    assert statistics.welch([0.1] * 3, [0.2] * 3).probability_above_zero is None


def test_interquartile_mean_trims_a_quarter_at_each_end():
    """Of 12 numbers the middle six; their winsorized sd over the remaining half gives the interval."""
    numbers = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 9.5, 99.0]
    known = statistics.interquartile_mean(numbers)
    assert known.value == 5.5
    spread = np.std([3, 3, 3, 3, 4, 5, 6, 7, 8, 8, 8, 8], ddof=1)
    assert known.high - 5.5 == pytest.approx(stats.t.ppf(0.975, 5) * spread / (0.5 * sqrt(12)), rel=1e-6)
    assert statistics.interquartile_mean([1.0, 2.0, 3.0]).reason == "n<4"
    assert statistics.interquartile_mean([1.0, 2.0, 3.0, 9.0]).value == 2.5
    assert statistics.interquartile_mean([1.0, 2.0, 3.0, 9.0]).reason == "n<10"


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_probability_of_improvement_is_mann_whitneys_u(x, y):
    u = stats.mannwhitneyu(x, y).statistic
    assert statistics.probability_of_improvement(x, y) == pytest.approx(u / len(x) / len(y))
