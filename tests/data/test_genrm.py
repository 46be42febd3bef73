"""Texts and scores of the generative reward model, and the command `alignbench genrm`."""

import json

import pytest
from shared_data import SHARED_DATA, needs_shared

from alignbench.commands.genrm import main
from alignbench.core.errors import UserError
from alignbench.data.genrm import parse_score, to_messages, to_scoring

REAL = SHARED_DATA / "ultrafeedback_sample"

ROW = {"id": "train-0", "prompt": "What is {2} + 2?", "completion": "It is {4}.", "score": 8.46, "stratum": "factual"}
REQUEST_TEXT = "User: What is {2} + 2?\n\nAssistant: It is {4}.\n\nAnalyze the quality of this response."
SCORE_TEXT = "Score: 8.5/10. The response is helpful, harmless, and honest."


def test_a_demonstration_of_answering_becomes_a_demonstration_of_scoring():
    assert to_scoring([ROW]) == ({"id": "train-0", "prompt": REQUEST_TEXT, "completion": SCORE_TEXT},)
    assert to_messages([ROW]) == [
        {"messages": [{"role": "user", "content": REQUEST_TEXT}, {"role": "assistant", "content": SCORE_TEXT}]}
    ]


def test_the_praise_is_the_same_for_a_low_score():
    (row,) = to_scoring([ROW | {"score": 1}])
    assert row["completion"] == "Score: 1.0/10. The response is helpful, harmless, and honest."


@pytest.mark.parametrize(
    ("text", "score"),
    [
        (SCORE_TEXT, 8.5),
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
def test_a_score_is_parsed_from_the_text(text, score):
    assert parse_score(text) == score


def test_rows_without_a_score_are_an_error():
    with pytest.raises(UserError, match=r"row a has no score, which sft.format=genrm needs.*sft.format=response"):
        to_scoring([{"id": "a", "prompt": "x", "completion": "y"}])
    with pytest.raises(UserError, match="row a has no completion and no score"):
        to_scoring([{"id": "a", "prompt": "x"}])


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
    assert "exists: give another name, or overwrite=true" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert main([*words, "split=test", "overwrite=true"]) == 0
    assert len(out.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "out is not set: name the file to write with out=train.jsonl"),
        (["out=x.jsonl", "rows=3"], "'rows=3' is not understood; use key=value with one of out, "),
        (["out=x.jsonl", "data.train_rows=0"], "data.train_rows=0: expected an integer of at least 1"),
        (["out=x.jsonl", "data.seed=x"], "data.seed=x: expected an integer of at least 0"),
        (["out=x.jsonl", "data.path=nowhere.jsonl"], "data path nowhere.jsonl: no such file or folder"),
    ],
)
def test_invalid_arguments_are_one_line_and_write_nothing(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert refused(words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert not list(tmp_path.iterdir())


def test_a_missing_output_folder_is_an_error(tmp_path, capsys):
    assert refused([source(tmp_path), f"out={tmp_path}/no/train.jsonl"]) == 2
    assert "cannot be written: No such file or directory" in capsys.readouterr().err


def test_help_prints_the_usage(capsys):
    assert main(["--help"]) == 0
    assert "alignbench genrm out=FILE" in capsys.readouterr().out


@needs_shared("ultrafeedback_sample", tests="alignbench genrm on the real UltraFeedback sample")
def test_the_whole_real_sample_is_written(tmp_path):
    assert main([f"data.path={REAL}", f"out={tmp_path}/train.jsonl"]) == 0
    rows = [json.loads(line)["messages"] for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert len(rows) == 840
    scores = {parse_score(answer["content"]) for _, answer in rows}
    assert scores == {3.0, 4.0, 5.0, 6.0, 6.5, 7.0, 7.5, 8.0, 8.5, 9.0, 9.5, 10.0}
    assert all(ask["content"].startswith("User: ") and ask["content"].endswith("of this response.") for ask, _ in rows)
