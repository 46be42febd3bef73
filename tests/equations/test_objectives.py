"""The clipped objectives, case by case."""

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from alignbench.equations.objectives import clipped, clipped_surrogate, clipped_value

LOW, HIGH = 0.2, 0.3

# advantage, ratio, loss without and with dual clip 3, does the clip decide?
CASES = {
    "good, unchanged": (1.0, 1.0, -1.0, -1.0, False),
    "good, above: no more is gained": (1.0, 1.5, -1.3, -1.3, True),
    "good, below: still pulled back": (1.0, 0.5, -0.5, -0.5, False),
    "bad, unchanged": (-1.0, 1.0, 1.0, 1.0, False),
    "bad, above: still pushed back": (-1.0, 1.5, 1.5, 1.5, False),
    "bad, below: no more is gained": (-1.0, 0.5, 0.8, 0.8, True),
    "bad, far above: the dual clip bounds it": (-1.0, 5.0, 5.0, 3.0, False),
    "worse, far above: the bound grows with it": (-2.0, 5.0, 10.0, 6.0, False),
    "good, far above: no business of the dual clip": (1.0, 5.0, -1.3, -1.3, True),
    "neither good nor bad": (0.0, 5.0, 0.0, 0.0, False),
}


@pytest.mark.parametrize(("advantage", "ratio", "plain", "dual", "decides"), CASES.values(), ids=CASES.keys())
def test_surrogate(advantage, ratio, plain, dual, decides):
    ratio, advantage = tensor([[ratio]]), tensor([[advantage]])
    assert_close(clipped_surrogate(ratio, advantage, LOW, HIGH), tensor([[plain]]))
    assert_close(clipped_surrogate(ratio, advantage, LOW, HIGH, dual_clip=3.0), tensor([[dual]]))
    assert clipped(ratio, advantage, LOW, HIGH).item() is decides


def test_the_gradient_vanishes_exactly_where_the_loss_is_clipped():
    ratio = torch.linspace(0.05, 3.05, 61).repeat(2, 1).requires_grad_()
    advantages = tensor([[1.0], [-1.0]]).expand(2, 61)
    gradient = torch.autograd.grad(clipped_surrogate(ratio, advantages, LOW, HIGH).sum(), ratio)[0]
    where = clipped(ratio, advantages, LOW, HIGH)
    assert where.any(1).all()
    assert_close(gradient, torch.where(where, 0.0, -advantages))


# value, old value, return, clip, loss
VALUES = {
    "no clip: half the squared error": (1.0, 0.5, 2.0, None, 0.5 * 1.0),
    "within the clip": (0.6, 0.5, 1.0, 0.2, 0.5 * 0.4**2),
    "moved too far, the right way: judged where it should have stopped": (1.0, 0.5, 2.0, 0.2, 0.5 * 1.3**2),
    "moved too far and arrived: still judged there": (1.0, 0.5, 1.0, 0.2, 0.5 * 0.3**2),
    "moved too far, the wrong way: judged where it is": (-0.5, 0.5, 1.0, 0.2, 0.5 * 1.5**2),
    "moved down": (0.0, 0.5, -1.0, 0.2, 0.5 * 1.3**2),
}


@pytest.mark.parametrize(("value", "old", "target", "clip", "loss"), VALUES.values(), ids=VALUES.keys())
def test_value(value, old, target, clip, loss):
    assert_close(clipped_value(tensor([[value]]), tensor([[old]]), tensor([[target]]), clip), tensor([[loss]]))


def test_tokens_are_independent():
    torch.manual_seed(0)
    a, b, c = torch.rand(2, 3), torch.randn(2, 3), torch.randn(2, 3)
    spoiled = [x.index_put((tensor([0]), tensor([1])), tensor(1e6)) for x in (a, b, c)]
    kept = tensor([[True, False, True], [True, True, True]])
    for equation in (
        lambda x, y, z: clipped_surrogate(x, y, LOW, HIGH, 3.0),
        lambda x, y, z: clipped(x, y, LOW, HIGH),
        lambda x, y, z: clipped_value(x, y, z, 0.2),
    ):
        assert torch.equal(equation(*spoiled)[kept], equation(a, b, c)[kept])
