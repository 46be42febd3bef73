"""Extracts the answer from a column that holds a text, a list of messages, or such a list as JSON."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from alignbench.core.errors import UserError
from alignbench.data.source import Record

PYTHON_NOTATION = ("[{'content':", "[{'role':")


def extract_answer(record: Record, column: str) -> str:
    """The content of the last assistant message, or the column itself where it is a plain text; it may be blank.

    Raises UserError with the file and line when the column is missing, when no message has the role assistant, or when
    the column holds a list of messages in Python's notation, whose quotes and braces would be part of the answer.
    """
    value = record[column]
    if isinstance(value, str):
        if value.startswith(PYTHON_NOTATION):
            raise UserError(
                f"{record.where}: column {column!r} is a list of messages in Python's notation, {value[:40]!r}...: "
                "write the messages themselves, or their JSON, into the file"
            )
        messages = _json_messages(value)
        return value if messages is None else _last_answer(messages, record.where, column)
    # A list of messages read from parquet may be an array.
    messages = list(value) if isinstance(value, Iterable) and not isinstance(value, Mapping) else []
    if not messages or not all(map(_is_message, messages)):
        raise UserError(
            f"{record.where}: column {column!r} must be a text or a list of messages with role and content, "
            f"found {value!r:.60}"
        )
    return _last_answer(messages, record.where, column)


def _json_messages(text: str) -> list[Any] | None:
    """The messages of a text that is their JSON; None for any other text."""
    if not text.lstrip().startswith("[{"):
        return None
    try:
        messages = json.loads(text)
    except json.JSONDecodeError:
        return None
    ends_with_assistant = all(map(_is_message, messages)) and messages[-1]["role"] == "assistant"
    return messages if ends_with_assistant else None


def _is_message(item: Any) -> bool:
    return isinstance(item, Mapping) and {"role", "content"} <= item.keys()


def _last_answer(messages: list[Any], where: str, column: str) -> str:
    contents = [message["content"] for message in messages if message["role"] == "assistant"]
    if not contents:
        raise UserError(f"{where}: no message in column {column!r} has the role 'assistant'")
    return str(contents[-1] or "")
