r"""MATH: the boxed answer, level and subject, and the columns of a file."""

import json
from collections import Counter
from pathlib import Path

import pytest
from shared_data import SHARED_DATA, needs_shared

from alignbench.core.errors import UserError
from alignbench.data.boxed import extract_boxed
from alignbench.data.competition_math import MATH

REAL = SHARED_DATA / "math" / "test.jsonl.gz"
SPLITS = ("train", "validation", "test")


def problem(i: int) -> dict:
    return {
        "problem": f"Halve ${i}$.",
        "level": "Level 2",
        "type": "Number Theory",
        "solution": f"It is $\\boxed{{\\frac{{{i}}}{{2}}}}$.",
    }


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_row_has_what_training_and_scoring_need(tmp_path):
    data = MATH(path=write(tmp_path / "a.jsonl", [problem(i) for i in range(20)]), validation_rows=3, test_rows=4)
    assert [len(data.prompts(split)) for split in SPLITS] == [13, 3, 4]
    assert data.demonstrations() == data.prompts("train")
    row = data.prompts("train")[0]
    i = row["prompt"].split("$")[1]
    assert row == {
        "id": "train-0",
        "prompt": f"Problem: Halve ${i}$.\n"
        "Solve it step by step and give the final answer in \\boxed{}.\nSolution:\n",
        "completion": f"It is $\\boxed{{\\frac{{{i}}}{{2}}}}$.",
        "reference": f"\\frac{{{i}}}{{2}}",
        "level": "Level 2",
        "subject": "Number Theory",
        "stratum": "level_2",
    }


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"question": "Q", "answer": "\\boxed{7}"}, {}),
        (
            {"problem": "Q", "solution": "\\boxed{7}", "answer": "7", "subject": "Algebra", "level": 5},
            {"level": 5, "subject": "Algebra", "stratum": "level_5"},
        ),
        ({"problem": "Q", "solution": "\\fbox{7}", "level": "Level ?"}, {"level": "Level ?"}),
    ],
)
def test_the_columns_of_other_copies_are_read(tmp_path, columns, expected):
    rows = [
        *map(problem, range(2)),
        *({**columns, key: f"Q{i}"} for i in range(4) for key in columns if key in ("problem", "question")),
    ]
    data = MATH(path=write(tmp_path / "a.jsonl", rows), validation_rows=1, test_rows=1, template="{question}")
    found = [row for split in SPLITS for row in data.prompts(split) if row["prompt"].startswith("Q")]
    assert len(found) == 4
    for row in found:
        assert row["reference"] == "7"
        assert {key: row[key] for key in row if key not in ("id", "prompt", "completion", "reference")} == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"problem": "x", "solution": "It is 5."},
            r"line 6: column 'solution' has no answer in \\boxed\{\}: \.\.\.",
        ),
        ({"problem": "x", "solution": "\\boxed{5"}, r"line 6: column 'solution' has no answer in"),
        ({"problem": "x", "solution": "\\boxed{ }"}, r"line 6: column 'solution' has no answer in"),
        ({"problem": "x", "answer": "5"}, r"line 6: column 'answer' has no answer in"),
        ({"problem": "x"}, r"line 6: column 'solution' is missing; the columns are: problem"),
        ({"text": "x"}, r"line 6: column 'problem' is missing; the columns are: text"),
    ],
)
def test_an_invalid_row_is_an_error_with_its_line(tmp_path, row, message):
    path = write(tmp_path / "a.jsonl", [*map(problem, range(5)), row])
    with pytest.raises(UserError, match=message):
        MATH(path=path, validation_rows=1, test_rows=1).prompts("train")


@needs_shared("math/test.jsonl.gz", tests="the splits and references of the real MATH file")
def test_the_real_problems():
    data = MATH(path=str(REAL), validation_rows=100, test_rows=400)
    rows = [row for split in SPLITS for row in data.prompts(split)]
    assert [len(data.prompts(split)) for split in SPLITS] == [4500, 100, 400]
    assert all(row["reference"] and row["reference"] == extract_boxed(row["completion"]) for row in rows)
    assert Counter(row["stratum"] for row in rows) == {
        "level_1": 437,
        "level_2": 894,
        "level_3": 1131,
        "level_4": 1214,
        "level_5": 1324,
    }
    assert len({row["subject"] for row in rows}) == 7
    assert not data.notes()
