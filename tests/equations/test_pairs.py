"""The loss of preference pairs, by hand."""

from math import log

import pytest
import torch

from alignbench.equations.pairs import bradley_terry


def scores(*values):
    return torch.tensor(values, requires_grad=True)


def test_the_loss_is_the_negative_log_likelihood_of_the_preference():
    # A lead of log 3 is a chance of 3/4; none is one of 1/2; being behind by log 3 is one of 1/4.
    loss = bradley_terry(scores(log(3), 0.0, 0.0), scores(0.0, 0.0, log(3)))
    assert loss.tolist() == pytest.approx([log(4 / 3), log(2), log(4)], rel=1e-6)


def test_a_margin_is_subtracted_from_the_lead():
    loss = bradley_terry(scores(2.0 + log(3), 2.0), scores(0.0, 0.0), torch.tensor([2.0, 2.0]))
    assert loss.tolist() == pytest.approx([log(4 / 3), log(2)], rel=1e-6)
    assert bradley_terry(scores(1.5), scores(0.0), 0.5).item() == bradley_terry(scores(1.0), scores(0.0)).item()


def test_its_gradient_is_the_probability_of_the_wrong_preference():
    chosen, rejected = scores(log(3), -40.0, 400.0), scores(0.0, 40.0, 0.0)
    bradley_terry(chosen, rejected).sum().backward()
    assert chosen.grad.tolist() == pytest.approx([-0.25, -1.0, 0.0], abs=1e-6)
    assert rejected.grad.tolist() == pytest.approx([0.25, 1.0, 0.0], abs=1e-6)


def test_large_differences_stay_finite():
    assert bradley_terry(scores(-1e4), scores(0.0)).item() == pytest.approx(1e4)
    assert bradley_terry(scores(1e4), scores(0.0)).item() == 0.0


def test_it_is_computed_in_single_precision():
    low = bradley_terry(torch.tensor([1.0]).bfloat16(), torch.tensor([0.5]).bfloat16())
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(0.474077, abs=1e-6)
