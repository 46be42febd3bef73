"""The recipes "reward" and "dataset" of docs/extending.md, followed literally for two training steps."""

from pathlib import Path

import pytest
from recipes import follow
from small_runs import lines, numbers, status

ARITHMETIC = (
    "data.demonstration_rows=60",
    "data.train_rows=40",
    "data.validation_rows=6",
    "data.test_rows=6",
)


@pytest.mark.parametrize(
    ("heading", "component"),
    [("### A function", "correct_and_short"), ("### A class with settings", "closeness")],
)
def test_a_reward(tmp_path: Path, heading: str, component: str) -> None:
    (run,) = follow(heading, tmp_path, *ARITHMETIC)
    assert status(run)["status"] == "finished"
    assert [f"rewards/component/{component}" in metrics for phase, _, metrics in numbers(run) if phase == "rl"][-1]


def test_a_dataset_of_two_methods(tmp_path: Path) -> None:
    (run,) = follow("## Dataset", tmp_path, "eval.samples=0")
    assert status(run)["status"] == "finished"
    answers = lines(run / "eval.jsonl")
    assert len(answers) == 40
    assert all(row["prompt"] == f"Double {int(row['reference']) // 2}.\n" for row in answers)
