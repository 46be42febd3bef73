"""Edge cases of the statistics that mutation testing found untested (see docs/mutation.md)."""

import numpy as np
import pytest

from analysis.statistics.estimate import interquartile_mean
from analysis.statistics.paired import sign_flip


def test_the_interquartile_mean_has_an_interval_from_ten_numbers_on():
    assert interquartile_mean(list(range(9))).reason == "n<10"
    ten = interquartile_mean([float(number) for number in range(10)])
    assert ten.reason is None
    assert ten.low < ten.value < ten.high
    assert interquartile_mean([1.0] * 10).reason == "zero_pooled_variance"


def test_smallest_p_of_sampled_sign_flips():
    many = [float(number) for number in range(40)]
    found = sign_flip(many, [number - 1 for number in many], np.random.default_rng(0))
    assert found.smallest == pytest.approx(2 / 20_000)
