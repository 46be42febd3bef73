"""GSM8K: the columns of a file, its splits, and the real rows."""

import json

import pytest
from shared_data import SHARED_DATA, needs_shared

from alignbench.core.errors import UserError
from alignbench.data.gsm8k import GSM8K
from alignbench.data.splits import check_disjoint, rows_hash

REAL = SHARED_DATA / "gsm8k"
SPLITS = ("train", "validation", "test")


def write(path, count, start=0):
    answers = {i: f"<<{i}+1={i + 1}>>{i + 1}\n#### {i + 1}" for i in range(start, count)}
    rows = [{"question": f"What is {i} + 1?", "answer": answer} for i, answer in answers.items()]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def sizes(data):
    return [len(data.prompts(split)) for split in SPLITS]


def test_a_row_has_what_training_and_scoring_need(tmp_path):
    data = GSM8K(path=write(tmp_path / "a.jsonl", 20), validation_rows=3, test_rows=4)
    assert sizes(data) == [13, 3, 4]
    row = data.prompts("train")[0]
    number = row["reference"]
    assert row == {
        "id": "train-0",
        "prompt": f"Question: What is {int(number) - 1} + 1?\nAnswer:\n",
        "completion": f"{number}\n#### {number}",
        "reference": number,
    }
    assert data.demonstrations() == data.prompts("train")


def test_template_and_calculator_annotations_are_configurable(tmp_path):
    data = GSM8K(
        path=write(tmp_path / "a.jsonl", 9), validation_rows=2, template="{question} {json}", strip_calculator=False
    )
    row = data.demonstrations()[0]
    assert row["prompt"].endswith("+ 1? {json}")
    assert row["completion"].startswith("<<")


def test_one_file_is_split_in_three_independently_of_its_order(tmp_path):
    path = tmp_path / "a.jsonl"
    one = GSM8K(path=write(path, 40), validation_rows=5)
    assert sizes(one) == [30, 5, 5]
    check_disjoint(**{split: one.prompts(split) for split in SPLITS})
    lines = path.read_text().splitlines()
    (tmp_path / "b.jsonl").write_text("\n".join(lines[::-1]))
    other = GSM8K(path=str(tmp_path / "b.jsonl"), validation_rows=5)
    for split in SPLITS:
        assert {r["prompt"] for r in one.prompts(split)} == {r["prompt"] for r in other.prompts(split)}


def test_a_test_file_or_a_folder_gives_the_test_rows(tmp_path):
    train, test = write(tmp_path / "train.jsonl", 20), write(tmp_path / "test.jsonl", 27, start=20)
    both = GSM8K(path=train, test_path=test, validation_rows=4, train_rows=10, test_rows=6)
    assert sizes(both) == [10, 4, 6]
    assert sizes(GSM8K(path=str(tmp_path), validation_rows=4)) == [16, 4, 7]
    write(tmp_path / "more.jsonl", 3)
    with pytest.raises(UserError, match="more.jsonl starts with neither train nor test"):
        sizes(GSM8K(path=str(tmp_path)))


def test_a_question_in_train_and_test_is_an_error(tmp_path):
    train, test = write(tmp_path / "train.jsonl", 20), write(tmp_path / "test.jsonl", 21, start=19)
    with pytest.raises(UserError, match=r"test row test-0 has the same prompt as (train|validation) row"):
        sizes(GSM8K(path=train, test_path=test, validation_rows=4))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "x"}', r"a.jsonl, line 6: column 'answer' is missing; the columns are: question"),
        ('{"question": "x", "answer": "15"}', r"a.jsonl, line 6: column 'answer' does not end in '#### <number>'"),
        ('{"question": "x", "answer": "15 ####"}', r"a.jsonl, line 6: column 'answer' does not end in"),
        ('{"question": "x", "answer"', r"a.jsonl, line 6: not JSON"),
    ],
)
def test_an_invalid_row_is_an_error_with_its_line(tmp_path, line, message):
    write(tmp_path / "a.jsonl", 5)
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write("\n" + line)
    with pytest.raises(UserError, match=message):
        sizes(GSM8K(path=str(tmp_path / "a.jsonl"), validation_rows=1, test_rows=1))


def test_invalid_settings_are_errors(tmp_path):
    with pytest.raises(UserError, match=r"has no {question}"):
        GSM8K(template="Answer:")
    with pytest.raises(UserError, match=r"data.test_path is set without data.path"):
        GSM8K(test_path="x.jsonl")
    with pytest.raises(UserError, match=r"no training rows are left"):
        sizes(GSM8K(path=write(tmp_path / "a.jsonl", 20), validation_rows=10))
    with pytest.raises(UserError, match="no split 'dev'"):
        GSM8K().prompts("dev")
    with pytest.raises(UserError, match="GSM8K has no preference pairs"):
        GSM8K().comparisons("train")


@needs_shared("gsm8k", tests="the splits of the real GSM8K files")
def test_the_real_folder_and_the_real_training_file():
    folder = GSM8K(path=str(REAL))
    assert sizes(folder) == [7473 - 256, 256, 1319]
    assert not any("<<" in row["completion"] for row in folder.demonstrations())
    assert {row["reference"] for row in folder.prompts("test")} >= {"18", "3"}
    one_file = GSM8K(path=str(REAL / "train.jsonl.gz"), test_rows=100, train_rows=500)
    assert sizes(one_file) == [500, 256, 100]
    assert rows_hash(one_file.prompts("test")) == rows_hash(
        GSM8K(path=str(REAL / "train.jsonl.gz"), test_rows=100).prompts("test")
    )
