"""The learning rate is a function of the step, and parameter groups have their own learning rates."""

import pytest
import torch
from torch.nn import Parameter

from alignbench.engine.optimizer import AdamW, Optimizer


def scales(total, steps, **settings):
    adamw = AdamW(**settings)
    return [adamw.scale(step, total) for step in steps]


def test_the_rate_warms_up_in_equal_steps():
    assert scales(100, range(6), warmup_steps=4) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert scales(100, [0, 99], warmup_steps=0) == [1.0, 1.0]


def test_the_rate_falls_in_a_line():
    found = scales(12, [2, 7, 12, 50], warmup_steps=2, schedule="linear", final_fraction=0.2)
    assert found == pytest.approx([1.0, 0.6, 0.2, 0.2])


def test_the_rate_falls_along_a_cosine():
    found = scales(8, [0, 2, 4, 8], warmup_steps=0, schedule="cosine", final_fraction=0.0)
    assert found == pytest.approx([1.0, (1 + 0.5**0.5) / 2, 0.5, 0.0])


def test_a_warm_up_can_be_longer_than_the_run():
    assert scales(3, range(3), warmup_steps=10, schedule="cosine") == [0.1, 0.2, 0.3]


def make(rates=(0.1, 0.02), **settings):
    groups = [([Parameter(torch.ones(2))], rate) for rate in rates]
    return Optimizer(groups, AdamW(**{"warmup_steps": 2, "eps": 1e-12, **settings}), total_steps=10)


def test_each_group_has_its_own_learning_rate():
    optimizer = make()
    for p in optimizer.parameters:
        p.grad = torch.tensor([3.0, -0.5])
    assert optimizer.step(0) == 0.05, "the rate of the first group, half way up"
    # Adam's first step is the rate times the sign of the gradient.
    torch.testing.assert_close(optimizer.parameters[0].detach(), torch.tensor([0.95, 1.05]))
    torch.testing.assert_close(optimizer.parameters[1].detach(), torch.tensor([0.99, 1.01]))
    assert all(p.grad is None for p in optimizer.parameters)


def test_the_gradient_is_clipped_by_the_norm_over_all_groups():
    optimizer = make(max_grad_norm=0.5)
    optimizer.parameters[0].grad = torch.tensor([3.0, 0.0])
    optimizer.parameters[1].grad = torch.tensor([0.0, 4.0])
    assert optimizer.clip() == pytest.approx(5.0)
    torch.testing.assert_close(optimizer.parameters[0].grad, torch.tensor([0.3, 0.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(optimizer.parameters[1].grad, torch.tensor([0.0, 0.4]), atol=1e-5, rtol=0)


def test_groups_that_are_clipped_separately_are_independent():
    optimizer = make(max_grad_norm=0.5)
    optimizer.apart = True
    optimizer.parameters[0].grad = torch.tensor([0.3, 0.0])
    optimizer.parameters[1].grad = torch.tensor([3.0, 4.0])
    assert optimizer.clip() == pytest.approx(25.09**0.5)
    assert torch.equal(optimizer.parameters[0].grad, torch.tensor([0.3, 0.0]))
    torch.testing.assert_close(optimizer.parameters[1].grad, torch.tensor([0.3, 0.4]), atol=1e-5, rtol=0)


def test_decay_is_decoupled_from_the_gradient():
    optimizer = make(weight_decay=0.5, warmup_steps=0)
    for p in optimizer.parameters:
        p.grad = torch.zeros(2)
    optimizer.step(0)
    torch.testing.assert_close(optimizer.parameters[0].detach(), torch.full((2,), 1 - 0.1 * 0.5))


def test_parameters_may_come_from_a_generator():
    weights = [Parameter(torch.ones(1)), Parameter(torch.ones(1))]
    optimizer = Optimizer([((p for p in weights), 0.1)], AdamW(warmup_steps=0), 1)
    for p in weights:
        p.grad = torch.ones(1)
    optimizer.step(0)
    assert all(p.item() < 1 for p in weights)
