"""Positions of JSON errors: line and column are those that an editor shows."""

import pytest

from alignbench.core.json_text import JSONTextError, describe_utf8_error, parse_json


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ('{"a": 1\n', 1, 8),
        ('{"a": 1 \n\n', 1, 8),
        ('[\n{"a": 1},\n\n', 2, 10),
        ('[\n{"a": 1}\n', 2, 9),
        ('{"a":\n\n }', 3, 2),
        ('{"a": "x\n"}', 1, 9),
        ("{'a': 1}", 1, 2),
        ("[1]\n[2]\n", 2, 1),
        ("", 1, 1),
        ("\n\n", 1, 1),
        ("\u00fc", 1, 1),
        ('{"\u00fc\U0001f600": x}', 1, 8),
    ],
)
def test_the_position_is_that_of_the_wrong_character_or_of_the_end_of_the_text(text, line, column):
    with pytest.raises(JSONTextError) as caught:
        parse_json(text)
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize(("text", "reason"), [("[" * 100_000, "nested too deeply"), ("1" * 5_000, "Exceeds the limit")])
def test_text_that_python_cannot_convert_is_an_error_without_a_column(text, reason):
    with pytest.raises(JSONTextError, match=reason) as caught:
        parse_json(text)
    assert caught.value.position == ""


def test_valid_text_is_parsed():
    assert parse_json(' {"a": [1, null]}\n') == {"a": [1, None]}


def test_the_position_of_bytes_that_are_not_utf8():
    assert describe_utf8_error("a\u00fc\n".encode() + b"xy\xe9z\n") == "line 2, byte 3: invalid continuation byte"
    assert describe_utf8_error(b"abc") == ""
