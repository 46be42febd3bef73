"""The benchmark of scale: slopes, work counted by hand, and an update whose memory does not grow with the batch."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from alignbench.algorithms.grpo import GRPO
from alignbench.engine.checks import Invariants
from benchmarks import lower_bound, scaling
from benchmarks.lower_bound import Least, Product, Shape, rollout, score, update
from benchmarks.scaling import Cell, measure, some
from benchmarks.scaling_page import Point, Sweep, exponent, ideal, of_studies, write
from benchmarks.workload import PARTS, Held, Load, loop

LOAD = Load(groups=2, group=4, prompt=5, answer=6, microbatch=4, minibatches=2)
SMALL = Cell(load=LOAD, hidden=32, layers=2, heads=2, intermediate=48, vocabulary=300)
SHAPE = Shape(
    linears=((32, 48, True),),
    head=(32, 300, True),
    layers=1,
    heads=2,
    known=2,
    width=16,
    weights=1000,
    learned=400,
    remembered=8,
)
CHECKS = Invariants(weights_moved="off")


def multiplied(products: Counter[Product]) -> int:
    return sum(p.rows * p.inner * p.columns * p.batch * times for p, times in products.items())


def test_the_exponent_is_that_of_a_power_law_at_its_end() -> None:
    xs = [2, 4, 8, 16]
    assert exponent(xs, [100.0, *(3 * x**0.7 for x in xs[1:])]) == pytest.approx(0.7)


def test_a_microbatch_reads_its_prompt_once_and_says_only_answers() -> None:
    own = 2 * 2 * 16 * (5 * 5 + 4 * 6 * (5 + 6))  # two products, two heads: a prompt with itself, four answers with all
    work = score(SHAPE, LOAD, reads=1)
    assert multiplied(work.products) == 2 * ((5 + 4 * 5) * 32 * 48 + 4 * 6 * 32 * 300 + own)
    assert work.moved == 2 * 1000
    assert multiplied(score(SHAPE, LOAD, reads=2).products) == 2 * multiplied(work.products)


def test_an_update_is_three_times_a_pass_where_all_learns() -> None:
    assert multiplied(update(SHAPE, LOAD).products) == 3 * multiplied(score(SHAPE, LOAD, reads=1).products)
    assert update(SHAPE, LOAD).moved == 2 * 2 * (1000 + 400) + 2 * 7 * 400


def test_what_is_frozen_has_no_gradient_of_its_own() -> None:
    frozen = replace(SHAPE, linears=((32, 48, False),))
    spared = multiplied(update(SHAPE, LOAD).products) - multiplied(update(frozen, LOAD).products)
    assert spared == 2 * (5 + 4 * 5) * 32 * 48


def test_a_rollout_reads_all_weights_for_each_token() -> None:
    work = rollout(SHAPE, LOAD)
    layers = (10 + 5 * 8) * 32 * 48 + (2 + 5 * 8) * 32 * 300
    seen = 2 * 2 * 16 * (2 * 5 * 5 + 5 * (8 * 3 + 2 * 4 * 5))
    assert multiplied(work.products) == layers + seen
    assert work.moved == 6 * 1000 + 5 * 8 * (2 * 5 + 8 * 3)


def test_the_shape_is_that_of_the_model() -> None:
    policy = SMALL.policy()
    shape, parameters = Shape.of(policy), sum(p.numel() for p in policy.model.parameters())
    assert sum(inputs * outputs for inputs, outputs, _ in shape.linears) == 2 * (4 * 32 * 32 + 3 * 32 * 48)
    assert (shape.head, shape.layers, shape.heads, shape.width) == ((32, 300, True), 2, 2, 16)
    assert shape.weights == shape.learned == 4 * parameters
    assert shape.remembered == 4 * 2 * 2 * 32


def test_a_cell_is_measured_with_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lower_bound, "ENOUGH", 1e-4)
    point = measure(0, SMALL, 0.0)
    assert point.x == sum(p.numel() for p in SMALL.policy().model.parameters())
    assert min(point.seconds[part] for part in PARTS) > 0
    assert all(0 < point.floor[part].seconds < point.seconds[part] for part in PARTS)
    assert point.held.weights == 4 * point.x
    assert point.held.optimizer == 3 * 4 * point.x
    assert point.held.peak >= point.held.weights + point.held.optimizer


def test_one_part_can_be_measured_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lower_bound, "ENOUGH", 1e-4)
    cells = [(x, replace(SMALL, vocabulary=x)) for x in (300, 310)]
    monkeypatch.setattr(scaling, "axes", lambda quick: {"K, answers to a prompt": [], "vocabulary": cells})
    (table,) = some(["vocabulary"], quick=True)
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["300", "310", "**exponent**"]


def test_answers_end_at_their_limit_and_the_updates_memory_does_not_grow_with_their_number() -> None:
    found = []
    for groups in (4, 16):  # two microbatches in a minibatch, and eight
        cell = replace(SMALL, load=replace(LOAD, groups=groups))
        run = loop(cell.policy(), GRPO(group_size=4), cell.load, CHECKS)
        scored = next(run.engine.run(run.stream, run.state)).scored
        assert torch.equal(scored.mask, torch.ones(4 * groups, 6, dtype=torch.bool))
        steps = run.steps()
        next(steps)
        found.append(run.held(steps))
    assert found[1].activations == found[0].activations > 0
    assert found[1].peak == pytest.approx(found[0].peak, rel=0.02)


def test_a_study_is_compared_with_one_run_repeated() -> None:
    swept = [
        Sweep(1, 1, 10.0, 1 << 20),
        Sweep(2, 1, 20.0, 1 << 20),
        Sweep(2, 2, 12.0, 2 << 20),
        Sweep(4, 1, 40.0, 1 << 20),
        Sweep(4, 2, 24.0, 2 << 20),
    ]
    assert ideal(swept[0], 3, 2) == 20.0
    assert of_studies(swept).splitlines()[2:] == [
        "| 1 | 10.0 | 1.00 | 1 |  |  |  |",
        "| 2 | 20.0 | 1.00 | 1 | 12.0 | 1.20 | 2 |",
        "| 4 | 40.0 | 1.00 | 1 | 24.0 | 1.20 | 2 |",
        "| **exponent** | **1.00** |  | **0.00** | **1.00** |  | **0.00** |",
    ]


def test_the_page_has_its_exponents_its_verdict_and_its_figure(tmp_path: Path) -> None:
    def point(x: float, peak: int) -> Point:
        least = dict.fromkeys(PARTS, Least(0.5 * x, 0.1))
        return Point(x, dict.fromkeys(PARTS, x * x), least, Held(100, 200, 700, peak))

    swept = [Sweep(1, 1, 10.0, 1 << 20), Sweep(2, 1, 20.0, 1 << 20), Sweep(2, 2, 12.0, 2 << 20), Sweep(4, 2, 24.0, 4)]
    write({"K": [point(2, 900), point(4, 1200), point(8, 1300)]}, [(4000, 64, Held(1, 2, 3, 9))], swept, tmp_path)
    page = (tmp_path / "scaling.md").read_text()
    assert "**2 of 3** settings meet the target of memory; the most is 1.30 times (K 8)." in page
    assert "| **exponent** | **2.00** | **2.00** | **2.00** | **2.00** | **1.00** | **0.00** | **1.00** |" in page
    assert "| 4 | 16.000 | 16.000 | 16.000 | 48.000 | 6.000 | 0.300 | 6.000 | 0.0 | 8.0 | 1.20 |" in page
    with Image.open(tmp_path / "scaling.png") as figure:
        assert figure.width > 2 * figure.height > 0
