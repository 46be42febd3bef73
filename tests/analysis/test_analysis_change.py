"""What training changed: numbers computed by hand, and nothing where there is nothing to say."""

import json
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from analysis.before_after.__main__ import main

Scores = dict[str, list[float]]


def answers(file: Path, scores: Scores, right: bool = False) -> Path:
    """A file of answers with these totals to each prompt, as a run writes them."""
    rows = [
        {
            "prompt_id": name,
            "prompt": f"What is {name}?",
            "response": f"{total:g}",
            "reference": "1",
            "scores": {"total": total},
            "correct": total == 1 if right else None,
            "tokens": 1,
            "truncated": False,
        }
        for name, totals in scores.items()
        for total in totals
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def compared(folder: Path, before: Scores, after: Scores, right: bool = False) -> dict[str, Any]:
    """What is written of two files of answers."""
    files = [
        f"{side}={answers(folder / f'{side}.jsonl', scores, right)}"
        for side, scores in (("before", before), ("after", after))
    ]
    assert main(files) == 0
    return json.loads((folder / "before_after.json").read_text())


def test_the_answers_to_one_problem_count_as_one(tmp_path: Path) -> None:
    told = compared(
        tmp_path,
        {"a": [0, 1], "b": [2, 2], "c": [1, 3], "d": [4, 4]},
        {"a": [1, 2], "b": [2, 2], "c": [1, 1], "d": [7, 6]},
    )
    reward = told["scores"]["avg_reward"]
    assert (told["total_problems"], told["samples"]) == (4, 2)
    assert (reward["before_mean"], reward["after_mean"]) == (2.125, 2.75)
    gaps = [1.0, 0.0, -1.0, 2.5]  # by hand: 1.5 - 0.5, 2 - 2, 1 - 2, 6.5 - 4
    error = sqrt(sum((gap - 0.625) ** 2 for gap in gaps) / 3 / 4)
    half = stats.t.ppf(0.975, 3) * error
    assert reward["improvement"]["estimate"] == 0.625
    assert reward["improvement"]["ci95"] == pytest.approx([0.625 - half, 0.625 + half])
    assert reward["paired_t"]["t"] == pytest.approx(0.625 / error)
    assert reward["improvement_percentage"] == {"estimate": pytest.approx(100 * 0.625 / 2.125), "reason": None}
    assert [reward[key]["count"] for key in ("problems_improved", "problems_worsened")] == [2, 1]
    assert reward["problems_equal"] == 1
    assert reward["problems_improved"]["share"]["estimate"] == 0.5
    assert reward["mcnemar"] == {
        "only_before": None,
        "only_after": None,
        "p": None,
        "reason": "not_right_or_wrong_once",
    }
    assert [row["avg_reward"]["change"] for row in told["per_problem"]] == gaps
    assert "accuracy" not in told["scores"]


def test_single_answers_that_are_right_or_wrong_get_mcnemars_test(tmp_path: Path) -> None:
    before = {str(i): [1.0 if i < 3 else 0.0] for i in range(12)}
    after = {str(i): [1.0 if 0 < i < 9 else 0.0] for i in range(12)}  # 0 lost, 3 to 8 won
    told = compared(tmp_path, before, after, right=True)["scores"]["accuracy"]
    assert told["mcnemar"] == {"only_before": 1, "only_after": 6, "p": pytest.approx(2 * 8 / 128), "reason": None}
    assert told["improvement"]["estimate"] == pytest.approx(5 / 12)
    assert told["improvement_percentage"]["estimate"] == pytest.approx(100 * 5 / 3)


@pytest.mark.parametrize(
    ("before", "after", "reason", "percentage"),
    [
        ({"a": [0.0], "b": [0.0]}, {"a": [1.0], "b": [0.0]}, None, "start_mean_is_zero"),
        ({"a": [-1.0], "b": [-2.0]}, {"a": [1.0], "b": [0.0]}, "constant_difference", "start_mean_below_zero"),
        ({"a": [1.0], "b": [1.0]}, {"a": [2.0], "b": [2.0]}, "zero_pooled_variance", None),
        ({"a": [1.0]}, {"a": [2.0]}, "n<2", None),
    ],
)
def test_a_number_that_does_not_exist_is_null_and_says_why(
    tmp_path: Path, before: Scores, after: Scores, reason: str | None, percentage: str | None
) -> None:
    told = compared(tmp_path, before, after)["scores"]["avg_reward"]
    assert told["improvement"]["reason"] == reason
    assert (told["improvement"]["ci95"] is None) == (reason is not None)
    assert told["improvement"]["estimate"] is not None
    assert told["improvement_percentage"]["reason"] == percentage
    assert (told["improvement_percentage"]["estimate"] is None) == (percentage is not None)


def test_rounding_is_no_change(tmp_path: Path) -> None:
    told = compared(tmp_path, {"a": [0.1, 0.2, 0.3], "b": [1, 2, 3]}, {"a": [0.3, 0.2, 0.1], "b": [3, 2, 1]})
    assert told["scores"]["avg_reward"]["problems_equal"] == 2


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"a": [1.0]}, {"b": [1.0]}, "prompt a is in one file only"),
        ({"a": [1.0]}, {"a": [1.0, 1.0]}, "varies from 1 to 2"),
        ({"a": [float("nan")]}, {"a": [1.0]}, "NaN or infinite"),
    ],
)
def test_files_that_cannot_be_compared_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], before: Scores, after: Scores, told: str
) -> None:
    files = [
        f"{side}={answers(tmp_path / f'{side}.jsonl', scores)}"
        for side, scores in (("before", before), ("after", after))
    ]
    assert main(files) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "before_after.json").exists()


def test_the_same_id_is_not_the_same_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = (answers(tmp_path / f"{side}.jsonl", {"a": [1.0]}) for side in ("before", "after"))
    after.write_text(after.read_text().replace("What is", "Who is"))
    assert main([f"before={before}", f"after={after}"]) == 2
    assert "different texts" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["run=x", "before=y", "after=z"], ["before=x"], ["after=x"], ["rnu=x"], ["run"]])
def test_words_that_say_nothing_to_compare_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "--help" in capsys.readouterr().err


def test_the_page_shows_answers_side_by_side_whatever_is_in_them(tmp_path: Path) -> None:
    before = answers(tmp_path / "before.jsonl", {"a": [1.0], "b | c": [1.0], "d": [0.0]})
    after = answers(tmp_path / "after.jsonl", {"a": [3.0], "b | c": [0.0], "d": [0.0]})
    after.write_text(after.read_text().replace('"response": "3"', '"response": "```\\nfour ````"'))
    assert main([f"before={before}", f"after={after}"]) == 0
    page = (tmp_path / "before_after.md").read_text()
    for heading in (
        "The problem that improved most",
        "The problem that worsened most",
        "The first problem with equal scores",
    ):
        assert f"### {heading}" in page
    assert "`````text\n```\nfour ````\n`````" in page
    table = page[page.index("## Every problem") :].strip().splitlines()[2:]
    assert len(table) == 5
    assert {line.replace("\\|", "").count("|") for line in table} == {6}
