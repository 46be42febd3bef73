"""Crossed seeds and prompts: mean squares computed by hand, and clustered errors against statsmodels."""

from math import nan, sqrt

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis import statistics

TABLE = np.array([[1.0, 2.0, 3.0], [3.0, 6.0, 6.0]])
"""Row means 2 and 5, column means 2, 4 and 4.5: MS_S = 13.5, MS_Q = 3.5, MS_R = 0.5."""


def test_one_table_by_hand():
    """Var = (13.5 + 3.5 - 0.5) / 6 = 2.75; df = 16.5^2 / (13.5^2 + 3.5^2 / 2 + 0.5^2 / 2)."""
    both = statistics.crossed(TABLE)
    assert both.new_both.value == 3.5
    assert both.df == pytest.approx(16.5**2 / (13.5**2 + 3.5**2 / 2 + 0.5**2 / 2))
    half = stats.t.ppf(0.975, both.df) * sqrt(2.75)
    assert (both.new_both.low, both.new_both.high) == pytest.approx((3.5 - half, 3.5 + half))


def test_the_budget_by_hand():
    """Variances (13.5 - 0.5) / 3 of a seed, (3.5 - 0.5) / 2 of a prompt, 0.5 of the rest."""
    budget = statistics.crossed(TABLE).budget
    assert (budget.seed_sd**2, budget.prompt_sd**2, budget.rest_sd**2) == pytest.approx((13 / 3, 1.5, 0.5))
    assert budget.error() ** 2 == pytest.approx(2.75)
    assert budget.error(times_seeds=2) ** 2 == pytest.approx(13 / 12 + 0.5 + 1 / 24)
    assert budget.error(times_prompts=2) ** 2 == pytest.approx(13 / 6 + 0.25 + 1 / 24)
    assert sum(budget.shares) == pytest.approx(1)
    assert budget.larger_source == "seeds"
    assert statistics.crossed(TABLE.T).budget.larger_source == "prompts"


def test_interval_for_new_prompts_uses_prompt_means():
    """Prompt means 2, 4, 4.5: an ordinary t-interval of three numbers."""
    known, plain = statistics.crossed(TABLE).new_prompts, statistics.mean_interval([2.0, 4.0, 4.5])
    assert (known.low, known.high) == pytest.approx((plain.low, plain.high))


def test_a_constant_method_adds_no_variance():
    alone, against = statistics.crossed(TABLE), statistics.crossed(TABLE, np.ones((3, 3)))
    assert against.new_both.value == alone.new_both.value - 1
    assert against.df == pytest.approx(alone.df)
    assert against.new_both.high - 2.5 == pytest.approx(alone.new_both.high - 3.5)


def test_two_methods_by_hand():
    """W = 2.25 + 0.5 (seed means 2, 5 and 1, 3), gaps 1.5, 2, 1, R = (0.5 + MS_R) / 6 with MS_R = 1.5."""
    other = np.array([[0.0, 1.0, 2.0], [1.0, 3.0, 5.0]])
    both = statistics.crossed(TABLE, other)
    gaps = np.array([2 - 0.5, 4 - 2, 4.5 - 3.5])
    w, p, r = 9 / 2 / 2 + 4 / 2 / 2, gaps.var(ddof=1) / 3, (0.5 + 0.5) / 6
    assert both.new_both.value == pytest.approx(1.5)
    assert p < r
    assert both.df == pytest.approx(w**2 / (2.25**2 + 1.0**2)), "a negative prompt component leaves Welch's interval"
    assert both.new_both.high - 1.5 == pytest.approx(stats.t.ppf(0.975, both.df) * sqrt(w))


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ((TABLE[:1],), "n<2"),
        ((TABLE, TABLE[:1]), "n<2"),
        ((np.where(TABLE == 6, nan, TABLE),), "not_finite"),
        ((np.full((3, 4), 0.1),), "zero_pooled_variance"),
        ((np.full((3, 4), 0.1), np.full((2, 4), 0.3)), "zero_pooled_variance"),
    ],
)
def test_undefined_estimates_are_none_with_a_reason(tables, reason):
    both = statistics.crossed(*tables)
    assert (both.new_both.low, both.new_both.high, both.budget) == (None, None, None)
    assert both.new_both.reason == reason


def test_one_seed_has_an_interval_for_new_prompts():
    both = statistics.crossed(TABLE[:1], TABLE[1:])
    assert both.new_prompts.value == -3
    assert both.new_prompts.low < -3 < both.new_prompts.high


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.permutations(range(6)), st.floats(-9, 9), st.floats(0.1, 9))
def test_invariance_to_order_unit_and_origin(seed, order, shift, factor):
    x, y = np.random.default_rng(seed).normal(size=(2, 3, 6))
    one, other = statistics.crossed(x, y), statistics.crossed(x[::-1][:, order] * factor + shift, y[:, order] * factor)
    assert other.new_both.low - shift == pytest.approx(factor * one.new_both.low, rel=1e-6, abs=1e-9)
    assert other.df == pytest.approx(one.df)
    assert other.budget.error() == pytest.approx(factor * one.budget.error())
    assert one.budget.error(times_seeds=2) < one.budget.error() > one.budget.error(times_prompts=2)


def test_clustered_error_by_hand():
    """Clusters (1, 0), (1, 1), (0, 0): sums about the mean 0, 1, -1; SE^2 = 3/2 (1 + 1) / 36."""
    interval = statistics.clustered([1, 0, 1, 1, 0, 0], ["a", "a", "b", "b", "c", "c"])
    assert interval.value == 0.5
    assert interval.high - 0.5 == pytest.approx(stats.t.ppf(0.975, 2) * sqrt(1.5 * 2 / 36))


def test_clustered_error_agrees_with_another_library():
    rng = np.random.default_rng(3)
    clusters = rng.integers(0, 30, 200)
    values = rng.normal(size=30)[clusters] + rng.normal(size=200)
    fit = sm.OLS(values, np.ones(200)).fit(cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": False})
    interval = statistics.clustered(values, clusters)
    number = len(set(clusters.tolist()))
    half = stats.t.ppf(0.975, number - 1) * fit.bse[0] * sqrt(number / (number - 1))
    assert interval.high - interval.value == pytest.approx(half)


@pytest.mark.parametrize(
    ("values", "clusters", "reason"),
    [
        ([1.0, 2.0], ["a", "a"], "n<2"),
        ([0.1, 0.1, 0.1], [0, 1, 2], "zero_pooled_variance"),
        ([1.0, nan], [0, 1], "not_finite"),
        ([], [], "n<2"),
    ],
)
def test_clusters_without_an_interval_have_a_reason(values, clusters, reason):
    interval = statistics.clustered(values, clusters)
    assert (interval.low, interval.high, interval.reason) == (None, None, reason)
