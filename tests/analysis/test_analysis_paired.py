"""Paired comparison by seed: values computed by hand, and undefined estimates."""

from math import nan, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import TTestPower

from analysis import statistics

X, Y = [3.0, 5.0, 8.0], [1.0, 2.0, 3.0]
RNG = np.random.default_rng(0)


def test_a_worked_example():
    """Differences 2, 3, 5: mean 10/3, variance 7/3; variances of the groups 19/3 and 1."""
    test = statistics.paired(X, Y)
    assert test.difference.value == pytest.approx(10 / 3)
    assert test.sd == pytest.approx(sqrt(7 / 3))
    assert test.difference.high - 10 / 3 == pytest.approx(4.302653 * sqrt(7 / 9), rel=1e-6)
    assert test.d_z.value == pytest.approx((10 / 3) / sqrt(7 / 3))
    assert test.d_av.value == pytest.approx((10 / 3) / sqrt(11 / 3))
    assert test.g_av.value == pytest.approx(test.d_av.value * sqrt(2 / np.pi))
    assert test.correlation == pytest.approx(0.99340, abs=1e-5)
    library = stats.ttest_rel(X, Y)
    assert (test.t, test.df, test.p) == pytest.approx((library.statistic, 2, library.pvalue))


def test_intervals_invert_the_noncentral_t():
    """d_av's limits are those of the noncentrality times sqrt(2 s_D^2 / (n (s1^2 + s2^2)))."""
    test = statistics.paired(X, Y)
    unit = sqrt(2 * (7 / 3) / (3 * (19 / 3 + 1)))
    for estimate, scale in ((test.d_z, 1 / sqrt(3)), (test.d_av, unit)):
        assert stats.nct.cdf(test.t, 2, estimate.low / scale) == pytest.approx(0.975, abs=1e-8)
        assert stats.nct.cdf(test.t, 2, estimate.high / scale) == pytest.approx(0.025, abs=1e-8)


def test_d_av_is_cohens_d_and_d_z_is_not():
    """For groups of one size the two divide by the same spread; d_z divides by that of the differences."""
    test = statistics.paired(X, Y)
    assert test.d_av.value == pytest.approx(statistics.cohens_d(X, Y).value)
    assert test.d_z.value > test.d_av.value


def test_a_constant_difference_has_no_d_z():
    test = statistics.paired([0.3, 0.5, 0.9], [0.1, 0.3, 0.7])
    assert test.difference.value == pytest.approx(0.2)
    assert (test.p, test.d_z.value, test.d_z.reason) == (None, None, "constant_difference")
    assert test.d_av.value == pytest.approx(0.2 / statistics.pooled_sd([0.3, 0.5, 0.9], [0.1, 0.3, 0.7]))
    assert (test.d_av.low, test.d_av.reason) == (None, "constant_difference")


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ([0.1] * 3, [0.3] * 3, "zero_pooled_variance"),
        ([1.0], [2.0], "n<2"),
        ([], [], "n<2"),
        ([1.0, nan], [1.0, 2.0], "not_finite"),
    ],
)
def test_undefined_estimates_are_none_with_a_reason(x, y, reason):
    test = statistics.paired(x, y)
    for estimate in (test.d_z, test.d_av, test.g_av):
        assert (estimate.value, estimate.low, estimate.reason) == (None, None, reason)
    assert (test.difference.low, test.difference.reason, test.p, test.probability_above_zero) == (
        None, reason, None, None)  # fmt: skip


def test_sign_flips_by_hand():
    """Of the 8 sign patterns of 2, 3, 5 only +++ and --- are as far from zero; of 2, -3, 5 six are."""
    test = statistics.sign_flip(X, Y, RNG)
    assert (test.p, test.smallest) == (0.25, 0.25)
    assert statistics.sign_flip([2.0, -3.0, 5.0], [0.0] * 3, RNG).p == pytest.approx(6 / 8)
    assert statistics.sign_flip([1.0, nan], [1.0, 2.0], RNG).reason == "not_finite"
    assert statistics.smallest_sign_flip_p(5) == 1 / 16


def test_many_sign_patterns_are_sampled_from_the_generator():
    """2^18 sign patterns exceed the exact limit, so they are sampled; one seed gives one p."""
    gaps = np.random.default_rng(1).normal(0.6, 1, 18).tolist()
    ps = [statistics.sign_flip(gaps, [0.0] * 18, np.random.default_rng(seed)).p for seed in (3, 3, 4)]
    assert ps[0] == ps[1] != ps[2]
    assert ps[0] == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue, abs=0.01)


def test_power_of_the_paired_test():
    assert statistics.minimum_detectable_d_z(3) == pytest.approx(3.26, abs=5e-3)
    assert statistics.minimum_detectable_d_z(1) is None
    assert statistics.pairs_needed(0.8) == 15
    assert statistics.pairs_needed(0.0) is None
    assert statistics.paired_power(0.8, 7) == pytest.approx(TTestPower().power(0.8, 7, 0.05), abs=1e-6)


numbers = st.lists(st.floats(-50, 50).map(lambda x: round(x, 3)), min_size=3, max_size=3)


@settings(max_examples=60, deadline=None)
@given(x=numbers, y=numbers, shift=st.floats(-9, 9), factor=st.floats(0.1, 9))
def test_invariance_to_unit_origin_and_order(x, y, shift, factor):
    one, other = statistics.paired(x, y), statistics.paired(y, x)
    if one.d_z.low is None or abs(one.t) > 400:
        return
    assert (other.d_z.value, other.d_av.low) == pytest.approx((-one.d_z.value, -one.d_av.high), rel=1e-6, abs=1e-9)
    moved = statistics.paired([factor * v + shift for v in x], [factor * v + shift for v in y])
    assert moved.d_av.value == pytest.approx(one.d_av.value, rel=1e-6, abs=1e-9)
    assert moved.p == pytest.approx(one.p, rel=1e-5, abs=1e-9)
