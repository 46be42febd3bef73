"""The answer in a column, in every format that files and parquet produce."""

import json

import numpy as np
import pandas as pd
import pytest

from alignbench.core.errors import UserError
from alignbench.data.answers import extract_answer
from alignbench.data.source import Record, read_files

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
LONG = [*TALK, {"role": "user", "content": "Bye"}, {"role": "assistant", "content": "So long."}]


def said(value):
    return extract_answer(Record("f, line 1", {"chosen": value}), "chosen")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Hello!", "Hello!"),
        (" [1, 2]\n", " [1, 2]\n"),
        (TALK, "Hello!"),
        (tuple(LONG), "So long."),
        (LONG[:3], "Hello!"),  # the person spoke last
        (np.array(LONG, dtype=object), "So long."),
        (json.dumps(LONG), "So long."),
        ([{"role": "assistant", "content": None}], ""),
        ('[{"a": 1}]', '[{"a": 1}]'),  # an answer that is JSON but not messages
        ('[{"role": "user", "content": "x"}]', '[{"role": "user", "content": "x"}]'),
        ("[{broken", "[{broken"),
    ],
)
def test_the_last_assistant_message_is_the_answer(value, expected):
    assert said(value) == expected


def test_an_array_read_from_parquet_is_a_list_of_messages(tmp_path):
    frame = pd.DataFrame({"chosen": [TALK, LONG]})
    frame.to_parquet(tmp_path / "a.parquet")
    arrays = pd.read_parquet(tmp_path / "a.parquet")["chosen"]
    assert isinstance(arrays[0], np.ndarray)
    assert [said(value) for value in arrays] == ["Hello!", "So long."]
    assert [extract_answer(record, "chosen") for record in read_files([tmp_path / "a.parquet"])] == [
        "Hello!",
        "So long.",
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (str(TALK), "f, line 1: column 'chosen' is a list of messages in Python's notation"),
        (str(np.array(TALK, dtype=object)), "is a list of messages in Python's notation"),
        (TALK[:1], "no message in column 'chosen' has the role 'assistant'"),
        ([], "must be a text or a list of messages with role and content, found \\[\\]"),
        ([1], "must be a text or a list of messages"),
        ({"role": "assistant", "content": "x"}, "must be a text or a list of messages"),
        (3, "must be a text or a list of messages with role and content, found 3"),
        (None, "column 'chosen' is empty"),
    ],
)
def test_an_invalid_answer_is_an_error_with_its_place(value, message):
    with pytest.raises(UserError, match=message):
        said(value)
