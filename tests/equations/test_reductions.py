"""Token weights, by hand and for any split into microbatches."""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import tensor
from torch.testing import assert_close

from alignbench.equations.reductions import Reduction, token_weights

HOWS = get_args(Reduction)
MASK = tensor([[True, True, True], [True, False, False], [False, False, False]])  # the last row has no token at all


@pytest.mark.parametrize(
    ("how", "of_three", "of_one"),
    [
        ("token_mean", 1 / 4, 1 / 4),  # four tokens
        ("sequence_mean", 1 / 6, 1 / 2),  # two rows, then the tokens of each
        ("sequence_sum", 1 / 2, 1 / 2),  # two rows
        ("fixed_length", 1 / 10, 1 / 10),  # two rows of at most five tokens
    ],
)
def test_weights_of_a_ragged_batch(how, of_three, of_one):
    expected = tensor([[of_three] * 3, [of_one, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert_close(token_weights(MASK, how, length=5), expected)


@pytest.mark.parametrize("how", HOWS)
def test_a_batch_without_tokens_has_zero_weights(how):
    assert torch.equal(token_weights(torch.zeros(2, 3, dtype=torch.bool), how, length=3), torch.zeros(2, 3))


def test_fixed_length_needs_a_length():
    with pytest.raises(AssertionError, match="length"):
        token_weights(MASK, "fixed_length")


@pytest.mark.parametrize(
    ("how", "bias"),
    [
        ("token_mean", 1.0),
        ("sequence_sum", 1.0),
        ("fixed_length", 1.0),
        ("sequence_mean", 1 / 4),
    ],
)
def test_length_bias(how, bias):
    """A token of a response four times as long counts as much, save where each response counts as one."""
    mask = torch.arange(8)[None] < tensor([8, 2])[:, None]
    weights = token_weights(mask, how, length=8)
    assert_close(weights[0, 0] / weights[1, 0], tensor(bias))


@st.composite
def splits(draw):
    """A ragged mask, and its rows dealt out to microbatches."""
    lengths = draw(st.lists(st.integers(0, 5), min_size=1, max_size=7))
    deal = draw(st.lists(st.integers(0, 3), min_size=len(lengths), max_size=len(lengths)))
    return torch.arange(5)[None] < tensor(lengths)[:, None], tensor(deal)


@given(split=splits(), how=st.sampled_from(HOWS), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_any_split_into_microbatches_adds_up(split, how, seed):
    mask, deal = split
    x = torch.randn(mask.shape, generator=torch.Generator().manual_seed(seed), requires_grad=True)
    weights = token_weights(mask, how, length=5)
    whole = (weights * x.sin()).sum()
    parts = [(weights[deal == i] * x[deal == i].sin()).sum() for i in range(4)]
    assert_close(sum(parts), whole)
    gradients = [torch.autograd.grad(part, x, retain_graph=True)[0] for part in parts]
    assert_close(sum(gradients), torch.autograd.grad(whole, x)[0])
