"""data=custom and data=qa_json: columns by the names in the config."""

import json
from pathlib import Path

import pandas as pd
import pytest
from small_runs import config

from alignbench.core.errors import UserError
from alignbench.data.custom import Custom
from alignbench.data.preference_pairs import BLANK, IDENTICAL
from alignbench.runs.run_data import RunData
from alignbench.runs.settings import build, resolve

SPLITS = ("train", "validation", "test")
SIZES = {"validation_rows": 2, "test_rows": 2}
PAIRS = {"chosen": "good", "rejected": "bad", "margin": "lead"}


def row(i: int) -> dict:
    return {
        "q": f"Q{i}",
        "gold": f"A{i}",
        "number": i,
        "good": f"yes {i}",
        "bad": f"no {i}",
        "lead": i / 10,
        "source": "book",
        "id": "mine",
        "completion": "not configured",
    }


def write(path: Path, rows: list[dict]) -> str:
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read_all(settings: dict) -> None:
    data = Custom(**settings)
    for split in SPLITS:
        data.prompts(split)
        if data.chosen:
            data.comparisons(split)


@pytest.fixture(params=["a.jsonl", "a.parquet"])
def path(request, tmp_path):
    return write(tmp_path / request.param, [row(i) for i in range(9)])


def test_every_column_is_kept_and_only_configured_ones_get_a_meaning(path):
    data = Custom(path=path, prompt="q", **SIZES)
    (first, *_) = data.prompts("train")
    i = int(first["prompt"].removeprefix("Q"))
    assert first == {
        "id": "train-0",
        "prompt": f"Q{i}",
        "q": f"Q{i}",
        "gold": f"A{i}",
        "number": i,
        "good": f"yes {i}",
        "bad": f"no {i}",
        "lead": i / 10,
        "source": "book",
    }
    for read in (data.demonstrations, lambda: data.comparisons("train")):
        with pytest.raises(
            UserError, match=r"no (demonstrations for SFT|preference pairs): name the columns? with data\."
        ):
            read()


def test_columns_for_completion_and_reference(path):
    data = Custom(path=path, prompt="q", completion="gold", reference="number", template="Q: {question} {x}", **SIZES)
    assert [len(data.prompts(split)) for split in SPLITS] == [5, 2, 2]
    first = data.demonstrations()[0]
    i = first["reference"]
    assert (first["prompt"], first["completion"], first["source"]) == (f"Q: Q{i} {{x}}", f"A{i}", "book")
    assert (first["q"], first["gold"], first["number"]) == (f"Q{i}", f"A{i}", i)


def test_columns_for_preference_pairs(path):
    data = Custom(path=path, prompt="q", **PAIRS, **SIZES)
    for split in SPLITS:
        for prompt, pair in zip(data.prompts(split), data.comparisons(split), strict=True):
            i = pair["prompt"].removeprefix("Q")
            assert pair == {
                "id": prompt["id"],
                "prompt": prompt["prompt"],
                "chosen": f"yes {i}",
                "rejected": f"no {i}",
                "margin": int(i) / 10,
            }
    without = Custom(path=path, prompt="q", chosen="good", rejected="bad", **SIZES)
    assert "margin" not in without.comparisons("train")[0]


def test_pairs_of_blank_or_identical_answers_are_dropped_and_counted(tmp_path):
    bad = [{**row(20), "bad": "yes 20"}, {**row(21), "good": " "}, {**row(22), "bad": ""}]
    data = Custom(
        path=write(tmp_path / "a.jsonl", [*map(row, range(9)), *bad]),
        prompt="q",
        chosen="good",
        rejected="bad",
        **SIZES,
    )
    assert sum(len(data.comparisons(split)) for split in SPLITS) == 9
    assert data.notes() == {IDENTICAL: 1, BLANK: 2}


@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        ({"prompt": "question"}, {}, r"a.jsonl, line 1: column 'question' is missing; the columns are: q, gold"),
        ({"reference": "answer"}, {}, r"line \d: column 'answer' is missing; the columns are: q, gold"),
        ({"completion": "answer"}, {}, r"line \d: column 'answer' is missing"),
        ({"completion": "gold"}, {"gold": " "}, r"line 10: column 'gold' is blank"),
        ({"completion": "number"}, {}, r"line \d: column 'number' must be a text or a list of messages"),
        ({"chosen": "good", "rejected": "worst"}, {}, r"line 1: column 'worst' is missing"),
        ({"chosen": "good"}, {}, r"data.chosen and data.rejected.*set both or neither"),
        ({"margin": "lead"}, {}, r"data.margin is set without data.chosen and data.rejected"),
        (PAIRS, {"lead": -1}, r"line 10: column 'lead' must be a number"),
        (PAIRS, {"lead": True}, r"line 10: column 'lead' must be a number"),
        ({"path": None}, {}, r"no data source: set data.path=<file or folder>, or data.name="),
        ({"template": "Q:"}, {}, r"has no {question}"),
    ],
)
def test_an_invalid_column_mapping_is_an_error_with_its_place(tmp_path, settings, change, message):
    path = write(tmp_path / "a.jsonl", [*map(row, range(9)), {**row(9), **change}])
    with pytest.raises(UserError, match=message):
        read_all({"path": path, "prompt": "q", **SIZES, **settings})


def test_qa_json_uses_the_answer_as_completion_and_reference(tmp_path):
    rows = [{"question": f"What is {i}?", "answer": f"A number, {i}.", "source": f"page {i}"} for i in range(9)]
    (tmp_path / "qa.json").write_text(json.dumps(rows))
    data = build(
        resolve(config("data=qa_json", f"data.path={tmp_path}/qa.json", "data.validation_rows=2", "data.test_rows=2"))
    ).data
    first = data.demonstrations()[0]
    i = first["source"].removeprefix("page ")
    assert first == {
        "id": "train-0",
        "prompt": f"Question: What is {i}?\n\nAnswer:",
        "completion": f"A number, {i}.",
        "reference": f"A number, {i}.",
        "question": f"What is {i}?",
        "answer": f"A number, {i}.",
        "source": f"page {i}",
    }


def test_a_question_in_train_and_test_stops_the_run(tmp_path):
    rows = [{"question": f"What is {i}?", "answer": f"A number, {i}."} for i in range(9)]
    train = write(tmp_path / "train.jsonl", rows)
    test = write(tmp_path / "test.jsonl", [{"question": " what is  8? ", "answer": "8"}])
    typed = ("data=qa_json", f"data.path={train}", f"data.test_path={test}", "data.validation_rows=2")
    with pytest.raises(UserError, match=r"test row test-0 has the same prompt as (train|validation) row"):
        RunData(build(resolve(config("hardware=cpu", *typed)))).check()
