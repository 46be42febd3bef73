"""Effect sizes, intervals and sample sizes against values from tables and values computed by hand."""

from math import isnan, nan, pi, sqrt

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.weightstats import ttost_ind

from analysis import statistics

GRPO, PPO = [64.5, 61.5, 62.7], [62.4, 64.1, 61.0]
CONSTANT = [0.1, 0.1, 0.1]
RNG = np.random.default_rng(0)


def test_hedges_correction_is_exact():
    assert statistics.small_sample_factor(4) == pytest.approx(sqrt(2 / pi), abs=1e-12)
    assert statistics.small_sample_factor(2) == pytest.approx(1 / sqrt(pi), abs=1e-12)


def test_effect_sizes_of_a_worked_example():
    """Means 62.9 and 62.5; variances 2.28 and 2.41; pooled sd sqrt(2.345); d = 0.4 / 1.5313."""
    d, g = statistics.cohens_d(GRPO, PPO), statistics.hedges_g(GRPO, PPO)
    assert d.value == pytest.approx(0.4 / sqrt(2.345), abs=1e-12)
    assert (d.low, d.high) == pytest.approx((-1.36, 1.86), abs=5e-3)
    assert g.value == pytest.approx(d.value * sqrt(2 / pi), abs=1e-12)
    assert (g.low, g.high) == (d.low, d.high), "both estimate the same true effect"


def test_interval_of_d_inverts_the_noncentral_t():
    d = statistics.cohens_d(GRPO, PPO)
    scale = sqrt(2 / 3)
    t = d.value / scale
    assert stats.nct.cdf(t, 4, d.low / scale) == pytest.approx(0.975, abs=1e-8)
    assert stats.nct.cdf(t, 4, d.high / scale) == pytest.approx(0.025, abs=1e-8)


def test_interval_of_a_huge_effect_is_finite_and_ordered():
    """For large t the noncentrality is t sqrt(chi2 / df): quantiles 0.484 and 11.14 of chi2(4)."""
    d = statistics.cohens_d([0.5, 0.500001, 0.5], [0.9, 0.9, 0.9])
    assert d.low / d.value == pytest.approx(sqrt(11.1433 / 4), rel=1e-4)
    assert d.high / d.value == pytest.approx(sqrt(0.484419 / 4), rel=1e-4)


def test_effects_change_sign_with_the_order_of_the_groups():
    one, other = statistics.cohens_d(GRPO, PPO), statistics.cohens_d(PPO, GRPO)
    assert (other.value, other.low, other.high) == pytest.approx((-one.value, -one.high, -one.low), abs=1e-8)


def test_welch_difference_and_interval():
    test = statistics.welch(GRPO, PPO)
    assert test.difference.value == pytest.approx(0.4)
    assert (test.difference.low, test.difference.high) == pytest.approx((-3.07, 3.87), abs=5e-3)
    assert test.t == pytest.approx(0.4 / sqrt(2.28 / 3 + 2.41 / 3))
    library = stats.ttest_ind(GRPO, PPO, equal_var=False)
    assert (test.t, test.df, test.p) == pytest.approx((library.statistic, library.df, library.pvalue))
    wide = statistics.welch(GRPO, PPO, 0.99).difference
    assert wide.low < test.difference.low < test.difference.high < wide.high


def test_interval_of_a_mean():
    """t(2, 0.975) = 4.302653; sd of 1, 2, 3 is 1."""
    interval = statistics.mean_interval([1.0, 2.0, 3.0])
    assert interval.high - 2 == pytest.approx(4.302653 / sqrt(3), rel=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        (CONSTANT, [0.2, 0.2, 0.2], "zero_pooled_variance"),
        ([0.7], PPO, "n<2"),
        ([], PPO, "n<2"),
        ([0.1, nan, 0.3], PPO, "not_finite"),
        ([0.1, float("inf")], PPO, "not_finite"),
    ],
)
def test_undefined_estimates_are_none_with_a_reason(x, y, reason):
    for estimate in (statistics.cohens_d(x, y), statistics.hedges_g(x, y)):
        assert (estimate.value, estimate.low, estimate.high, estimate.reason) == (None, None, None, reason)
    difference = statistics.welch(x, y).difference
    assert (difference.low, difference.high, difference.reason) == (None, None, reason)


def test_zero_variance_keeps_the_raw_difference_and_no_p():
    """`np.std([0.1] * 3)` is 1.4e-17, so a test of `sd == 0` would give p = 1e-62."""
    test = statistics.welch(CONSTANT, [0.3, 0.3, 0.3])
    assert test.difference.value == pytest.approx(-0.2)
    assert test.p is None
    assert statistics.is_constant(CONSTANT)
    assert not statistics.is_constant([0.1, 0.1, 0.1001])


def test_one_constant_group_still_has_an_effect():
    """Pooled variance (0 + 1) / 2."""
    assert statistics.cohens_d([3.0, 3.0, 3.0], [1.0, 2.0, 3.0]).value == pytest.approx(1 / sqrt(0.5))


def test_permutation_is_exact_with_its_smallest_p():
    test = statistics.permutation(GRPO, PPO, RNG)
    assert test.p == pytest.approx(0.7)
    assert test.smallest == pytest.approx(0.10)
    apart = statistics.permutation([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], RNG)
    assert apart.p == pytest.approx(apart.smallest)
    assert statistics.permutation([1.0, nan], [1.0, 2.0], RNG).p is None


@pytest.mark.parametrize(("n_first", "n_second"), [(3, 3), (5, 5), (4, 6), (8, 7)])
def test_permutation_agrees_with_another_library(n_first, n_second):
    rng = np.random.default_rng(n_first)
    x, y = rng.normal(0.8, 1, n_first).round(1), rng.normal(0, 1, n_second).round(1)
    library = stats.permutation_test((x, y), lambda a, b: a.mean() - b.mean(), vectorized=False, n_resamples=np.inf)
    assert statistics.permutation(list(x), list(y), RNG).p == pytest.approx(library.pvalue)


def test_many_relabelings_are_sampled():
    """C(24, 12) is 2.7 million; for normal data p is close to that of the t-test."""
    data = np.random.default_rng(5)
    x, y = list(data.normal(0.8, 1, 12)), list(data.normal(0, 1, 12))
    ps = [statistics.permutation(x, y, np.random.default_rng(seed)).p for seed in (1, 1, 2)]
    assert ps[0] == ps[1] != ps[2]
    assert ps[0] == pytest.approx(stats.ttest_ind(x, y).pvalue, abs=0.01)


def test_smallest_detectable_effect():
    assert statistics.minimum_detectable_d(3, 3) == pytest.approx(3.07, abs=5e-3)
    assert statistics.minimum_detectable_d(5, 5, alpha=0.05 / 6) == pytest.approx(2.83, abs=5e-3)
    assert statistics.minimum_detectable_d(1, 3) is None


def test_an_effect_that_reaches_p_05_with_three_seeds_is_at_least_2_267():
    critical = stats.t.ppf(0.975, 4) * sqrt(2 / 3)
    assert critical == pytest.approx(2.267, abs=1e-3)
    x = [0.0, 1.0, 2.0]
    y = [number + critical for number in x]
    assert statistics.welch(y, x).p == pytest.approx(0.05, abs=1e-9)


@pytest.mark.parametrize(("d", "seeds"), [(0.5, 64), (0.8, 26), (1.0, 17), (1.5, 9), (2.0, 6), (3.0, 4)])
def test_seeds_needed(d, seeds):
    assert statistics.seeds_needed(d) == seeds
    assert statistics.seeds_needed(-d) == seeds


def test_seeds_needed_for_zero_effect_is_none():
    assert statistics.seeds_needed(0.0) is None


@pytest.mark.parametrize(("d", "n"), [(0.8, 3), (0.8, 26), (3.07, 3), (1.0, 10)])
def test_power_agrees_with_another_library(d, n):
    assert statistics.power(d, n, n) == pytest.approx(TTestIndPower().power(d, n, 0.05, 1.0), abs=1e-6)


@pytest.mark.parametrize(("d", "n", "m", "simulated"), [(0.0, 3, 3, 0.0355), (3.07, 3, 3, 0.6958), (1.5, 3, 5, 0.3476)])
def test_power_of_welch_against_simulation(d, n, m, simulated):
    """`simulated` is the share of p < 0.05 in 100,000 studies, good to 0.0015."""
    assert statistics.welch_power(d, n, m) == pytest.approx(simulated, abs=5e-3)


def test_power_of_welch_approaches_that_of_the_t_test():
    gaps = [statistics.power(1.0, n, n) - statistics.welch_power(1.0, n, n) for n in (3, 5, 10, 40)]
    assert gaps == sorted(gaps, reverse=True)
    assert 0 < gaps[-1] < 1e-3


def test_holm_by_hand():
    """Sorted .01, .03, .04 become 3 x .01, 2 x .03 and at least the one before."""
    assert statistics.holm([0.04, 0.01, None, 0.03]) == pytest.approx([0.06, 0.03, None, 0.06])
    ps = [0.7, 0.0005, 0.07, 0.001, 0.13, 0.02]
    assert statistics.holm(ps) == pytest.approx(list(multipletests(ps, method="holm")[1]))


def test_probability_of_improvement_counts_pairings():
    assert statistics.probability_of_improvement(GRPO, PPO) == pytest.approx(6 / 9)
    assert statistics.probability_of_improvement([1.0], [1.0]) == 0.5
    assert statistics.probability_of_improvement([], [1.0]) is None


def test_equivalence_agrees_with_two_one_sided_tests():
    x, y = [0.50, 0.51, 0.49, 0.50, 0.505], [0.50, 0.495, 0.51, 0.50, 0.49]
    for margin in (0.002, 0.005, 0.01, 0.02, 0.05):
        p = ttost_ind(np.array(x), np.array(y), -margin, margin, usevar="unequal")[0]
        assert statistics.is_equivalent(x, y, margin) == (p < 0.05)
    assert statistics.is_equivalent(CONSTANT, CONSTANT, 0.1) is None


def test_ratio_of_costs():
    half = statistics.ratio([1.0, 2.0, 4.0], [2.0, 4.0, 8.0])
    assert half.value == pytest.approx(0.5)
    assert half.low < 0.5 < half.high
    assert statistics.ratio([0.0, 1.0], [1.0, 1.0]).reason == "not_positive"


def test_mean_of_empty_or_nan_is_none():
    assert statistics.mean([]) is None
    assert statistics.mean([1.0, nan]) is None
    assert not isnan(statistics.mean([1.0, 2.0]))
