"""Rows from files: every format gives the same rows, and errors name the file and line."""

import gzip
import json

import pandas as pd
import pytest

from alignbench.core.errors import UserError
from alignbench.data.source import find_files, read_files

ROWS = [{"question": "how many?", "answer": "#### 1"}, {"question": "und wie viele\u00df?", "answer": "#### 2"}]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n"


def columns(path):
    return [record.columns for record in read_files(find_files(str(path)))]


def write(path, text):
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", LINES),
        ("a.jsonl.gz", LINES),
        ("a.json", json.dumps(ROWS)),
        ("a.json.gz", json.dumps(ROWS)),
        ("bom.jsonl", "\ufeff" + LINES),
        ("blank.jsonl", LINES.replace("\n", "\n\n")),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path, name, text):
    assert columns(write(tmp_path / name, text)) == ROWS


def test_parquet_gives_the_same_rows(tmp_path):
    pd.DataFrame(ROWS).to_parquet(tmp_path / "a.parquet")
    assert columns(tmp_path / "a.parquet") == ROWS


def test_a_folder_gives_the_rows_of_its_data_files_by_name(tmp_path):
    write(tmp_path / "b.jsonl", json.dumps(ROWS[1]))
    write(tmp_path / "a.json.gz", json.dumps(ROWS[:1]))
    write(tmp_path / "README.md", "not data")
    assert columns(tmp_path) == ROWS


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", LINES + '{"question": "cut', r"a.jsonl, line 3: not JSON: Unterminated string.* at column 14"),
        ("a.jsonl.gz", LINES + "nonsense\n" + LINES, r"a.jsonl.gz, line 3: not JSON: Expecting value at column 1"),
        ("a.jsonl", LINES + '{"question": "cut"\n', r"a.jsonl, line 3: not JSON: Expecting ',' delimiter at column 19"),
        ("a.jsonl.gz", LINES + '{"question":\n' + LINES, r"a.jsonl.gz, line 3: not JSON: Expecting value at column 13"),
        ("a.jsonl", "\ufeff\n\n" + '{"question": }\n', r"a.jsonl, line 3: not JSON: Expecting value at column 14"),
        ("a.jsonl", LINES + "[" * 100_000, r"a.jsonl, line 3: not JSON: nested too deeply"),
        ("a.jsonl", LINES + '{"answer": ' + "1" * 5_000 + "}", r"a.jsonl, line 3: not JSON: Exceeds the limit"),
        ("a.jsonl", json.dumps(ROWS, indent=1), r"a.jsonl, line 1: not JSON: .* must be named .json$"),
        ("a.json", '[\n{"a": 1}\n\n', r"a.json, line 2: not JSON: Expecting ',' delimiter at column 9"),
        ("a.json.gz", '[\n{"a": 1}\n{"a": 2}]', r"a.json.gz, line 3: not JSON: Expecting ',' delimiter at column 1$"),
        (
            "a.json",
            '[{"messages": [{"role": "user"},\n {"role": }]}]',
            r"a.json, line 2: not JSON: Expecting value at column 11",
        ),
        ("a.jsonl", LINES + "[1, 2]", r"a.jsonl, line 3: expected an object with named columns, found list"),
        ("a.json", '[\n{"a": 1},\n{"a": }]', r"a.json, line 3: not JSON: Expecting value"),
        ("a.json", LINES, r"a.json, line 2: not JSON: Extra data.*must be named .jsonl"),
        ("a.json", '{"question": []}', r"a.json: expected a list of objects, found dict"),
        ("a.json", "[1]", r"a.json, item 0: expected an object with named columns, found int"),
        ("a.jsonl", "", r"no rows in .*a.jsonl: the dataset is empty"),
        ("a.json", "[]", r"no rows in .*a.json: the dataset is empty"),
        ("a.txt", LINES, r"a.txt: unsupported file format; supported are .json, .jsonl"),
    ],
)
def test_malformed_content_is_an_error_with_file_and_line(tmp_path, name, text, message):
    path = write(tmp_path / name, text)
    with pytest.raises(UserError, match=message):
        columns(path)


def test_a_missing_file_is_an_error_that_names_the_working_directory():
    with pytest.raises(UserError, match=r"data path no/such.jsonl: no such file or folder \(looked from /"):
        find_files("no/such.jsonl")


def test_a_folder_without_data_files_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no data file in this folder; supported are"):
        find_files(str(tmp_path))


def test_damaged_files_are_errors(tmp_path):
    whole = gzip.compress(LINES.encode())
    damaged = {"cut.jsonl.gz": whole[:-12], "not.jsonl.gz": b"plain", "not.parquet": b"plain", "latin.jsonl": b'"\xe9"'}
    for name, data in damaged.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=f"{name}.*: (cannot be read|not a readable parquet file|not UTF-8 text)"):
            columns(tmp_path / name)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json"])
def test_bytes_that_are_not_utf8_are_named_by_line_in_a_file_of_any_size(tmp_path, name):
    data = LINES.encode() * 2_000 + '{"question": "Häh?"}\n'.encode("latin-1")
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.raises(UserError, match=f"{name}, line 4001, byte 16: invalid continuation byte: not UTF-8 text"):
        columns(tmp_path / name)


def test_a_missing_column_is_named_with_the_available_columns(tmp_path):
    write(tmp_path / "a.jsonl", '{"q": "x", "answer": null, "number": 3}')
    (record,) = read_files(find_files(str(tmp_path)))
    with pytest.raises(UserError, match=r"a.jsonl, line 1: column 'question' is missing; the columns are: q, answer"):
        record["question"]
    with pytest.raises(UserError, match=r"line 1: column 'answer' is empty"):
        record["answer"]
    with pytest.raises(UserError, match=r"line 1: column 'number' must be a text that is not blank, found 3"):
        record.text("number")
