"""SVAMP: the prompt from body and question, the number, and the equation in the completion."""

import json
from pathlib import Path

import pytest
from shared_data import SHARED_DATA, needs_shared

from alignbench.core.errors import UserError
from alignbench.data.svamp import SVAMP, WRONG

REAL = SHARED_DATA / "svamp" / "SVAMP.json"
SPLITS = ("train", "validation", "test")


def problem(i: int) -> dict:
    return {
        "ID": f"chal-{i}",
        "Body": f"Ann has {i} pens.",
        "Question": "How many are twice as many?",
        "Equation": f"( {i}.0 * 2.0 )",
        "Answer": 2.0 * i,
        "Type": "Multiplication",
    }


def write(path: Path, rows: list[dict]) -> str:
    path.write_text(json.dumps(rows))
    return str(path)


def rows_of(tmp_path: Path, *rows: dict) -> list[dict]:
    """Those of `rows` that are left, beside others that fill the splits."""
    path = write(tmp_path / "a.json", [*map(problem, range(5, 10)), *rows])
    data = SVAMP(path=path, validation_rows=1, test_rows=1, template="{question}")
    return [dict(row) for split in SPLITS for row in data.prompts(split) if not row["prompt"].startswith("Ann")]


def test_a_row_has_what_training_and_scoring_need(tmp_path):
    data = SVAMP(path=write(tmp_path / "a.json", [problem(i) for i in range(20)]), validation_rows=3, test_rows=4)
    assert [len(data.prompts(split)) for split in SPLITS] == [13, 3, 4]
    assert data.demonstrations() == data.prompts("train")
    row = data.prompts("train")[0]
    twice = row["reference"]
    assert row == {
        "id": "train-0",
        "prompt": f"Question: Ann has {int(twice) // 2} pens. How many are twice as many?\nAnswer:\n",
        "completion": f"{int(twice) // 2} * 2 = {twice}\n#### {twice}",
        "reference": twice,
    }


@pytest.mark.parametrize(
    ("equation", "answer", "completion"),
    [
        ("( ( 8.0 + 3.0 ) * 2.0 )", 22.0, "(8 + 3) * 2 = 22\n#### 22"),
        ("( 8.0 - ( 3.0 + 2.0 ) )", 3, "8 - (3 + 2) = 3\n#### 3"),
        ("( 1.0 / 3.0 )", 0.33, "1 / 3 = 0.33\n#### 0.33"),
        ("( 40.0 * 100.0 )", "4000.0", "40 * 100 = 4000\n#### 4000"),
        (None, 5.0, "#### 5"),
    ],
)
def test_the_completion_shows_the_equation(tmp_path, equation, answer, completion):
    row = {"Body": "If so", "Question": "How many?", "Equation": equation, "Answer": answer}
    (found,) = rows_of(tmp_path, row)
    assert found["prompt"] == "If so, How many?"
    assert found["completion"] == completion
    assert found["reference"] == completion.rpartition("#### ")[2]


def test_a_row_whose_equation_contradicts_the_answer_is_dropped_and_counted(tmp_path):
    row = {"Body": "B.", "Question": "Q?", "Equation": "( 4.0 - 2.0 )", "Answer": 3.0}
    assert rows_of(tmp_path, row) == []
    assert SVAMP(path=str(tmp_path / "a.json"), validation_rows=1).notes() == {WRONG: 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Answer": "many"}, r"item 5: column 'Answer' must be a number, found 'many'"),
        ({"Answer": "nan"}, r"item 5: column 'Answer' must be a number"),
        ({"Answer": None}, r"item 5: column 'Answer' is empty"),
        ({"Equation": "( 1.0 / 0.0 )"}, r"item 5: column 'Equation' must consist of numbers,"),
        ({"Equation": "__import__('os')"}, r"item 5: column 'Equation' must consist of numbers,"),
        ({"Equation": "4 +"}, r"item 5: column 'Equation' must consist of numbers,"),
        ({"Equation": 4}, r"item 5: column 'Equation' must be a text"),
        ({"Body": " "}, r"item 5: column 'Body' must be a text that is not blank"),
    ],
)
def test_an_invalid_row_is_an_error_with_its_place(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        rows_of(tmp_path, {**problem(1), **change})


@needs_shared("svamp/SVAMP.json", tests="the splits and equations of the real SVAMP file")
def test_the_real_problems():
    data = SVAMP(path=str(REAL), validation_rows=100, test_rows=300)
    assert [len(data.prompts(split)) for split in SPLITS] == [599, 100, 300]
    assert data.notes() == {WRONG: 1}  # apples 4 - 2 + 3, answered with 1
    rows = [row for split in SPLITS for row in data.prompts(split)]
    assert all(row["completion"].endswith(f"\n#### {row['reference']}") for row in rows)
    assert not any(".0" in row["completion"] for row in rows)
