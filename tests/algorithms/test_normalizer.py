"""Score normalization, by hand."""

import pytest
import torch
from small_batches import scored
from torch import tensor
from torch.testing import assert_close

from alignbench.algorithms.grpo import GRPO
from alignbench.algorithms.normalizer import EMA
from alignbench.core.errors import UserError


def test_a_batch_is_normalized_by_the_statistics_before_it():
    ema = EMA(alpha=0.9, mean=3.0, std=2.0)
    out, after = ema(tensor([1.0, 5.0, 9.0, 5.0]), ema.start)  # mean 5, squares 16 + 0 + 16 + 0 over 4
    assert_close(out, tensor([-1.0, 1.0, 3.0, 1.0]))
    assert (after.mean, after.std) == pytest.approx((0.9 * 3 + 0.1 * 5, 0.9 * 2 + 0.1 * 8**0.5))


def test_without_initial_statistics_the_first_batch_sets_them():
    ema = EMA(alpha=0.9)
    assert ema.start is None
    out, after = ema(tensor([1.0, 3.0]), ema.start)
    assert_close(out, tensor([-1.0, 1.0]))
    assert (after.mean, after.std) == pytest.approx((2.0, 1.0))
    again, _ = ema(tensor([2.0, 4.0]), after)
    assert_close(again, tensor([0.0, 2.0]))


def test_the_scale_of_one_to_five():
    ema = EMA(mean=3.0, std=1.0, center=3.0, low=1.0, high=5.0)
    assert_close(ema(tensor([-9.0, 2.5, 3.0, 4.9, 7.0]), ema.start)[0], tensor([1.0, 2.5, 3.0, 4.9, 5.0]))


def test_scores_that_are_all_equal_stay_equal_and_finite():
    out, after = EMA()(torch.full((4,), 7.0), None)
    assert_close(out, torch.zeros(4))
    assert (after.mean, after.std) == (7.0, 0.0)
    assert torch.isfinite(EMA()(tensor([7.0, 8.0]), after)[0]).all()


@pytest.mark.parametrize("settings", [{"mean": 1.0}, {"std": 1.0}, {"low": 5.0, "high": 1.0}])
def test_invalid_settings_are_an_error(settings):
    with pytest.raises(UserError):
        EMA(**settings)


def test_six_answers_against_their_mean():
    """A worked example: six scores of one prompt, their mean 3.1167 taken off."""
    scores = tensor([4.2, 3.8, 2.1, 1.3, 4.5, 2.8])
    zeros = torch.zeros(6, 2)
    batch = scored(old_logprobs=zeros, ref_logprobs=zeros, scores=scores, group=torch.zeros(6, dtype=torch.long))
    advantages = GRPO(group_size=6, scale_by_std=False).credit(batch).advantages
    assert_close(advantages[:, 0], tensor([1.08, 0.68, -1.02, -1.82, 1.38, -0.32]), atol=0.005, rtol=0)
    assert_close(advantages[:, 0], advantages[:, 1])
