"""Advantage estimators against values computed by hand, and against each other."""

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from alignbench.equations.advantages import (
    at_last_token,
    batch_std,
    divided,
    gae,
    group_mean,
    group_std,
    leave_one_out,
    over_tokens,
    standardised,
    to_go,
    whiten,
)

SCORES = tensor([1.0, 10.0, 2.0, 20.0, 3.0, 7.0])
GROUP = tensor([4, 9, 4, 9, 4, 0])  # 1, 2, 3 together; 10, 20 together; 7 alone
GROUPED = {
    "mean": group_mean,
    "std": group_std,
    "leave one out": leave_one_out,
    "standardised": lambda scores, group: standardised(scores, group, eps=1e-6),
}
every_grouped = pytest.mark.parametrize("equation", GROUPED.values(), ids=GROUPED.keys())


def ragged(*lengths, width=None):
    """A mask of rows that begin with so many valid tokens."""
    return torch.arange(width or max(lengths))[None] < tensor(lengths)[:, None]


class TestGAE:
    def test_three_steps_by_hand(self):
        advantages, returns = gae(tensor([[1.0, 0.0, 2.0]]), tensor([[0.5, 1.0, 1.5]]), ragged(3), 0.9, 0.8)
        last = 2.0 - 1.5  # nothing follows the last token
        middle = 0.0 + 0.9 * 1.5 - 1.0 + 0.9 * 0.8 * last
        first = 1.0 + 0.9 * 1.0 - 0.5 + 0.9 * 0.8 * middle
        assert_close(advantages, tensor([[first, middle, last]]))
        assert_close(advantages, tensor([[1.9112, 0.71, 0.5]]))
        assert_close(returns, tensor([[2.4112, 1.71, 2.0]]))

    def test_masked_tokens_inside_a_row_are_skipped(self):
        mask = tensor([[True, False, True, True, False]])
        rewards, values = tensor([[1.0, 9.0, 0.0, 2.0, 9.0]]), tensor([[0.5, 9.0, 1.0, 1.5, 9.0]])
        advantages, returns = gae(rewards, values, mask, 0.9, 0.8)
        assert_close(advantages, tensor([[1.9112, 0.0, 0.71, 0.5, 0.0]]))
        assert_close(returns, tensor([[2.4112, 0.0, 1.71, 2.0, 0.0]]))

    def test_without_discount_it_is_the_reward_to_go_minus_the_value(self):
        torch.manual_seed(0)
        rewards, values, mask = torch.randn(4, 6), torch.randn(4, 6), ragged(6, 3, 1, 0)
        to_go = (rewards * mask).flip(1).cumsum(1).flip(1)
        advantages, returns = gae(rewards, values, mask, gamma=1.0, lam=1.0)
        assert_close(advantages, (to_go - values) * mask)
        assert_close(returns, to_go * mask)

    def test_with_lambda_zero_it_is_the_one_step_td_error(self):
        advantages, _ = gae(tensor([[0.0, 1.0]]), tensor([[2.0, 3.0]]), ragged(2), gamma=0.5, lam=0.0)
        assert_close(advantages, tensor([[0.0 + 0.5 * 3.0 - 2.0, 1.0 - 3.0]]))


class TestGroups:
    def test_mean(self):
        assert_close(group_mean(SCORES, GROUP), tensor([2.0, 15.0, 2.0, 15.0, 2.0, 7.0]))

    @pytest.mark.parametrize(("ddof", "of_three", "of_two"), [(1, 1.0, 50**0.5), (0, (2 / 3) ** 0.5, 5.0)])
    def test_std(self, ddof, of_three, of_two):
        expected = tensor([of_three, of_two, of_three, of_two, of_three, 0.0])
        assert_close(group_std(SCORES, GROUP, ddof), expected)

    def test_the_standard_deviation_has_ddof_1_by_default(self):
        assert torch.equal(group_std(SCORES, GROUP), group_std(SCORES, GROUP, ddof=1))
        assert torch.equal(standardised(SCORES, GROUP, 0.0), standardised(SCORES, GROUP, 0.0, ddof=1))

    def test_leave_one_out(self):
        assert_close(leave_one_out(SCORES, GROUP), tensor([1 - 2.5, 10 - 20, 2 - 2.0, 20 - 10, 3 - 1.5, 0.0]))

    def test_leave_one_out_is_the_centred_score_times_g_over_g_minus_one(self):
        scores, group = torch.randn(12), torch.arange(12) % 3
        assert_close(leave_one_out(scores, group), 4 / 3 * (scores - group_mean(scores, group)))

    @pytest.mark.parametrize(("eps", "three"), [(0.0, [-1.0, 0.0, 1.0]), (1.0, [-0.5, 0.0, 0.5])])
    def test_standardised(self, eps, three):
        advantages = standardised(SCORES, GROUP, eps)
        assert_close(advantages[GROUP == 4], tensor(three))
        assert_close(advantages[GROUP == 9], tensor([-5.0, 5.0]) / (50**0.5 + eps))
        assert advantages[GROUP == 0] == 0

    def test_standardised_uses_the_same_ddof_as_the_standard_deviation(self):
        assert_close(standardised(SCORES, GROUP, eps=0.0, ddof=0)[GROUP == 9], tensor([-1.0, 1.0]))

    def test_standardised_is_invariant_to_scale_and_shift(self):
        assert_close(standardised(3 * SCORES + 5, GROUP, eps=0.0), standardised(SCORES, GROUP, eps=0.0))

    @every_grouped
    def test_the_order_of_rollouts_does_not_matter(self, equation):
        order = torch.randperm(6, generator=torch.Generator().manual_seed(3))
        assert_close(equation(SCORES[order], GROUP[order]), equation(SCORES, GROUP)[order], rtol=0, atol=0)

    @pytest.mark.parametrize("size", [2, 3, 7, 8])
    @pytest.mark.parametrize("score", [0.35, 0.1, 1 / 3, -1e7 / 3])
    def test_equal_scores_give_exactly_zero(self, score, size):
        scores, group = torch.full((2 * size,), score), torch.arange(2 * size) % 2
        for equation in (GROUPED["std"], GROUPED["leave one out"], GROUPED["standardised"]):
            assert torch.equal(equation(scores, group), torch.zeros(2 * size))
        assert torch.equal(standardised(scores, group, eps=0.0), torch.zeros(2 * size))


class TestWhiten:
    X, MASK = tensor([[1.0, 3.0], [2.0, 1e6]]), ragged(2, 1)

    @pytest.mark.parametrize(("ddof", "variance"), [(1, 1.0), (0, 2 / 3)])
    def test_mean_zero_variance_one(self, ddof, variance):
        expected = tensor([[-1.0, 1.0], [0.0, 0.0]]) / variance**0.5
        assert_close(whiten(self.X, self.MASK, ddof), expected)

    @pytest.mark.parametrize(("ddof", "variance"), [(1, 1.0), (0, 2 / 3)])
    def test_without_shift_the_values_are_only_scaled(self, ddof, variance):
        expected = tensor([[1.0, 3.0], [2.0, 0.0]]) / variance**0.5
        assert_close(whiten(self.X, self.MASK, ddof, shift_mean=False), expected)

    @pytest.mark.parametrize("ddof", [0, 1])
    @pytest.mark.parametrize("shift_mean", [True, False])
    @pytest.mark.parametrize("valid", [0, 1])
    def test_too_few_tokens_have_no_variance(self, valid, shift_mean, ddof):
        assert torch.equal(whiten(self.X, ragged(valid, 0, width=2), ddof, shift_mean), torch.zeros(2, 2))

    def test_equal_tokens_stay_near_zero(self):
        assert whiten(torch.full((4, 7), 0.35), ragged(7, 7, 7, 7)).abs().max() < 1e-2


def test_the_score_is_the_reward_of_the_last_token():
    mask = tensor([[True, True, True], [True, False, False], [True, False, True], [False, False, False]])
    paid = at_last_token(tensor([1.0, 2.0, 3.0, 4.0]), mask)
    assert torch.equal(paid, tensor([[0.0, 0.0, 1.0], [2.0, 0.0, 0.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]]))


def test_reward_to_go():
    mask = tensor([[True, False, True, True], [True, True, False, False]])
    found = to_go(tensor([[1.0, 9.0, 2.0, 4.0], [0.5, 0.25, 9.0, 9.0]]), mask)
    assert torch.equal(found, tensor([[7.0, 0.0, 6.0, 4.0], [0.75, 0.25, 0.0, 0.0]]))


@pytest.mark.parametrize(("ddof", "spread"), [(1, 1.0), (0, (2 / 3) ** 0.5)])
def test_division_by_the_standard_deviation_of_the_batch(ddof, spread):
    assert_close(batch_std(tensor([1.0, 2.0, 3.0]), ddof), tensor(spread))
    assert batch_std(tensor([5.0])) == 0
    assert divided(tensor([0.0, 0.0]), tensor(0.0), eps=0.0).tolist() == [0.0, 0.0]
    assert_close(divided(tensor([1.0, -3.0]), tensor([0.5, 0.0]), eps=0.5), tensor([1.0, 0.0]))


def test_every_token_of_a_rollout_gets_its_advantage():
    assert torch.equal(over_tokens(tensor([5.0, -1.0]), ragged(2, 1)), tensor([[5.0, 5.0], [-1.0, 0.0]]))


GARBAGE = {
    "gae rewards": lambda x, y, mask: torch.cat(gae(x, y.where(mask, 0.0), mask, 0.9, 0.8)),
    "gae values": lambda x, y, mask: torch.cat(gae(x.where(mask, 0.0), y, mask, 0.9, 0.8)),
    "to go": lambda x, y, mask: to_go(x, mask),
    "whiten": lambda x, y, mask: whiten(x, mask),
    "whiten without shift": lambda x, y, mask: whiten(x, mask, shift_mean=False),
}


@pytest.mark.parametrize("equation", GARBAGE.values(), ids=GARBAGE.keys())
@pytest.mark.parametrize("garbage", [1e6, -1e6, float("nan")])
def test_values_outside_the_mask_have_no_effect(equation, garbage):
    torch.manual_seed(1)
    x, y = torch.randn(4, 5), torch.randn(4, 5)
    mask = ragged(5, 3, 1, 0) & tensor([True, False, True, True, True])
    clean = equation(x, y, mask)
    assert torch.equal(equation(x.where(mask, garbage), y.where(mask, garbage), mask), clean)
    assert torch.equal(clean * ~mask.repeat(len(clean) // 4, 1), torch.zeros_like(clean))
