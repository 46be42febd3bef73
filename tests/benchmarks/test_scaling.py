"""Scaling benchmark: exponents, matrix products counted by hand, and update memory constant in the batch size."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from alignbench.algorithms.grpo import GRPO
from alignbench.engine.checks import Invariants
from benchmarks import lower_bound, scaling
from benchmarks.lower_bound import Floor, MatMul, ModelShape, rollout, score, update
from benchmarks.scaling import Cell, measure, measure_axes
from benchmarks.scaling_page import Point, StudyCost, exponent, ideal_seconds, studies_table, write
from benchmarks.workload import PARTS, Load, UpdateMemory, build_timed_loop

LOAD = Load(prompts=2, group_size=4, prompt_tokens=5, response_tokens=6, microbatch=4, minibatches=2)
SMALL = Cell(load=LOAD, hidden=32, layers=2, heads=2, intermediate=48, vocabulary=300)
SHAPE = ModelShape(
    linears=((32, 48, True),),
    head=(32, 300, True),
    layers=1,
    heads=2,
    kv_heads=2,
    head_dim=16,
    weight_bytes=1000,
    trained_bytes=400,
    kv_bytes=8,
)
CHECKS = Invariants(weights_moved="off")


def count_multiplications(products: Counter[MatMul]) -> int:
    return sum(p.rows * p.inner * p.columns * p.batch * times for p, times in products.items())


def test_exponent_fits_the_last_points_of_a_power_law() -> None:
    xs = [2, 4, 8, 16]
    assert exponent(xs, [100.0, *(3 * x**0.7 for x in xs[1:])]) == pytest.approx(0.7)


def test_scoring_counts_a_prompt_once_per_microbatch_and_logits_of_responses_only() -> None:
    own = 2 * 2 * 16 * (5 * 5 + 4 * 6 * (5 + 6))  # two products, two heads: a prompt with itself, four answers with all
    work = score(SHAPE, LOAD, passes=1)
    assert count_multiplications(work.products) == 2 * ((5 + 4 * 5) * 32 * 48 + 4 * 6 * 32 * 300 + own)
    assert work.bytes_moved == 2 * 1000
    assert count_multiplications(score(SHAPE, LOAD, passes=2).products) == 2 * count_multiplications(work.products)


def test_update_has_three_times_the_products_of_a_forward_pass() -> None:
    assert count_multiplications(update(SHAPE, LOAD).products) == 3 * count_multiplications(
        score(SHAPE, LOAD, passes=1).products
    )
    assert update(SHAPE, LOAD).bytes_moved == 2 * 2 * (1000 + 400) + 2 * 7 * 400


def test_frozen_weights_need_no_weight_gradient() -> None:
    frozen = replace(SHAPE, linears=((32, 48, False),))
    spared = count_multiplications(update(SHAPE, LOAD).products) - count_multiplications(update(frozen, LOAD).products)
    assert spared == 2 * (5 + 4 * 5) * 32 * 48


def test_rollout_moves_all_weights_for_each_token() -> None:
    work = rollout(SHAPE, LOAD)
    layers = (10 + 5 * 8) * 32 * 48 + (2 + 5 * 8) * 32 * 300
    seen = 2 * 2 * 16 * (2 * 5 * 5 + 5 * (8 * 3 + 2 * 4 * 5))
    assert count_multiplications(work.products) == layers + seen
    assert work.bytes_moved == 6 * 1000 + 5 * 8 * (2 * 5 + 8 * 3)


def test_model_shape_is_read_from_the_policy() -> None:
    policy = SMALL.policy()
    shape, parameters = ModelShape.from_policy(policy), sum(p.numel() for p in policy.model.parameters())
    assert sum(inputs * outputs for inputs, outputs, _ in shape.linears) == 2 * (4 * 32 * 32 + 3 * 32 * 48)
    assert (shape.head, shape.layers, shape.heads, shape.head_dim) == ((32, 300, True), 2, 2, 16)
    assert shape.weight_bytes == shape.trained_bytes == 4 * parameters
    assert shape.kv_bytes == 4 * 2 * 2 * 32


def test_cell_is_measured_with_the_rl_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lower_bound, "MIN_SECONDS", 1e-4)
    point = measure(0, SMALL, 0.0)
    assert point.x == sum(p.numel() for p in SMALL.policy().model.parameters())
    assert min(point.seconds[part] for part in PARTS) > 0
    assert all(0 < point.floor[part].seconds < point.seconds[part] for part in PARTS)
    assert point.memory.weights == 4 * point.x
    assert point.memory.optimizer == 3 * 4 * point.x
    assert point.memory.peak >= point.memory.weights + point.memory.optimizer


def test_one_axis_can_be_measured_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lower_bound, "MIN_SECONDS", 1e-4)
    cells = [(x, replace(SMALL, vocabulary=x)) for x in (300, 310)]
    monkeypatch.setattr(scaling, "axes", lambda quick: {"K, responses per prompt": [], "vocabulary": cells})
    (table,) = measure_axes(["vocabulary"], quick=True)
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["300", "310", "**exponent**"]


def test_responses_have_full_length_and_update_memory_is_constant_in_their_number() -> None:
    memory = []
    for prompts in (4, 16):  # two microbatches in a minibatch, and eight
        cell = replace(SMALL, load=replace(LOAD, prompts=prompts))
        run = build_timed_loop(cell.policy(), GRPO(group_size=4), cell.load, CHECKS)
        scored = next(run.engine.run(run.stream, run.state)).scored
        assert torch.equal(scored.mask, torch.ones(4 * prompts, 6, dtype=torch.bool))
        steps = run.steps()
        next(steps)
        memory.append(run.update_memory(steps))
    assert memory[1].activations == memory[0].activations > 0
    assert memory[1].peak == pytest.approx(memory[0].peak, rel=0.02)


def test_study_is_compared_with_one_run_repeated() -> None:
    studies = [
        StudyCost(1, 1, 10.0, 1 << 20),
        StudyCost(2, 1, 20.0, 1 << 20),
        StudyCost(2, 2, 12.0, 2 << 20),
        StudyCost(4, 1, 40.0, 1 << 20),
        StudyCost(4, 2, 24.0, 2 << 20),
    ]
    assert ideal_seconds(studies[0], 3, 2) == 20.0
    assert studies_table(studies).splitlines()[2:] == [
        "| 1 | 10.0 | 1.00 | 1 |  |  |  |",
        "| 2 | 20.0 | 1.00 | 1 | 12.0 | 1.20 | 2 |",
        "| 4 | 40.0 | 1.00 | 1 | 24.0 | 1.20 | 2 |",
        "| **exponent** | **1.00** |  | **0.00** | **1.00** |  | **0.00** |",
    ]


def test_page_has_exponents_summary_and_figure(tmp_path: Path) -> None:
    def point(x: float, peak: int) -> Point:
        least = dict.fromkeys(PARTS, Floor(0.5 * x, 0.1))
        return Point(x, dict.fromkeys(PARTS, x * x), least, UpdateMemory(100, 200, 700, peak))

    studies = [
        StudyCost(1, 1, 10.0, 1 << 20),
        StudyCost(2, 1, 20.0, 1 << 20),
        StudyCost(2, 2, 12.0, 2 << 20),
        StudyCost(4, 2, 24.0, 4),
    ]
    write(
        {"K": [point(2, 900), point(4, 1200), point(8, 1300)]},
        [(4000, 64, UpdateMemory(1, 2, 3, 9))],
        studies,
        tmp_path,
    )
    page = (tmp_path / "scaling.md").read_text()
    assert "**2 of 3** settings meet the memory target; the largest ratio is 1.30 (K 8)." in page
    assert "| **exponent** | **2.00** | **2.00** | **2.00** | **2.00** | **1.00** | **0.00** | **1.00** |" in page
    assert "| 4 | 16.000 | 16.000 | 16.000 | 48.000 | 6.000 | 0.300 | 6.000 | 0.0 | 8.0 | 1.20 |" in page
    with Image.open(tmp_path / "scaling.png") as figure:
        assert figure.width > 2 * figure.height > 0
