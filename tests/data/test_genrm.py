"""The scorer's texts, letter by letter, its scores read back, and the command that writes the file."""

import json
from pathlib import Path

import pytest

from alignbench.commands.genrm import main
from alignbench.core.errors import UserError
from alignbench.data.genrm import as_messages, as_scoring, parse_score

REAL = Path(__file__).parents[3] / "shared" / "data" / "ultrafeedback_sample"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="no shared/data/ultrafeedback_sample beside the repository")

ROW = {"id": "train-0", "prompt": "What is {2} + 2?", "completion": "It is {4}.", "score": 8.46, "stratum": "factual"}
ASKED = "User: What is {2} + 2?\n\nAssistant: It is {4}.\n\nAnalyze the quality of this response."
SAID = "Score: 8.5/10. The response is helpful, harmless, and honest."


def test_a_demonstration_of_answering_becomes_one_of_scoring():
    assert as_scoring([ROW]) == ({"id": "train-0", "prompt": ASKED, "completion": SAID},)
    assert as_messages([ROW]) == [
        {"messages": [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}]}
    ]


def test_a_bad_score_is_praised_all_the_same():
    (row,) = as_scoring([ROW | {"score": 1}])
    assert row["completion"] == "Score: 1.0/10. The response is helpful, harmless, and honest."


@pytest.mark.parametrize(
    ("text", "score"),
    [
        (SAID, 8.5),
        ("Score:10/10", 10.0),
        ("I think. Score:\n7.25/10, or Score: 3/10", 7.25),
        ("Score: 8.5 / 10", None),
        ("Score: -1/10", None),
        ("score: 5/10", None),
        ("Score: 8./10", None),
        ("8.5/10", None),
        ("", None),
    ],
)
def test_a_score_is_read_from_the_text(text, score):
    assert parse_score(text) == score


def test_rows_without_a_score_are_refused():
    with pytest.raises(UserError, match=r"row a has no score to learn scoring from.*sft.format=response"):
        as_scoring([{"id": "a", "prompt": "x", "completion": "y"}])
    with pytest.raises(UserError, match="row a has no completion and no score"):
        as_scoring([{"id": "a", "prompt": "x"}])


def source(tmp_path):
    rows = [
        {"prompt": f"Is {i} é?", "chosen": "Yes.", "rejected": "No.", "score_chosen": 9, "score_rejected": 4}
        for i in range(20)
    ]
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return f"data.path={path}"


def refused(words):
    """The exit code of a command that says what is wrong."""
    with pytest.raises(SystemExit) as stopped:
        main(words)
    return stopped.value.code


def test_the_command_writes_a_line_for_each_row(tmp_path, capsys):
    out = tmp_path / "train.jsonl"
    words = [source(tmp_path), f"out={out}", "data.train_rows=10", "data.validation_rows=3", "data.test_rows=2"]
    assert main(words) == 0
    lines = out.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 10
    assert all(parse_score(json.loads(line)["messages"][1]["content"]) == 9.0 for line in lines)
    assert "é" in lines[0]
    printed = capsys.readouterr().out
    assert "      20 rows read\n" in printed
    assert printed.endswith(f"      10 lines written to {out}\n")

    before = out.read_bytes()
    assert refused([*words, "split=test"]) == 2
    assert "is there already: give another name, or overwrite=true" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert main([*words, "split=test", "overwrite=true"]) == 0
    assert len(out.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say where to write: out=train.jsonl"),
        (["out=x.jsonl", "rows=3"], "'rows=3' is not understood; use key=value with one of out, "),
        (["out=x.jsonl", "data.train_rows=0"], "data.train_rows=0: a whole number from 1 on"),
        (["out=x.jsonl", "data.seed=x"], "data.seed=x: a whole number from 0 on"),
        (["out=x.jsonl", "data.path=nowhere.jsonl"], "data path nowhere.jsonl: no such file or folder"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert refused(words) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {message}")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_told(tmp_path, capsys):
    assert refused([source(tmp_path), f"out={tmp_path}/no/train.jsonl"]) == 2
    assert "cannot be written: No such file or directory" in capsys.readouterr().err


def test_help_says_what_can_be_typed(capsys):
    assert main(["--help"]) == 0
    assert "alignbench genrm out=train.jsonl" in capsys.readouterr().out


@needs_real
def test_the_real_sample_is_written_whole(tmp_path):
    assert main([f"data.path={REAL}", f"out={tmp_path}/train.jsonl"]) == 0
    rows = [json.loads(line)["messages"] for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 840
    scores = {parse_score(answer["content"]) for _, answer in rows}
    assert scores == {3.0, 4.0, 5.0, 6.0, 6.5, 7.0, 7.5, 8.0, 8.5, 9.0, 9.5, 10.0}
    assert all(ask["content"].startswith("User: ") and ask["content"].endswith("of this response.") for ask, _ in rows)
