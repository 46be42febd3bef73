"""The answer in a chosen or rejected column: a text, a list of messages, or such a list written as JSON."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from alignbench.core.errors import UserError
from alignbench.data.source import Record

PRINTED = ("[{'content':", "[{'role':")


def answer(record: Record, column: str) -> str:
    """What the assistant said last, or the text itself where the column holds a plain one; it may be blank.

    Raises UserError naming the place when the column is missing, when no message is the assistant's, or when the
    column holds a list of messages as Python prints it, which would be trained on quotes, braces and all.
    """
    value = record[column]
    if isinstance(value, str):
        if value.startswith(PRINTED):
            raise UserError(
                f"{record.where}: column {column!r} holds a printed list of messages, {value[:40]!r}...: write the "
                "messages themselves, or their JSON, into the file"
            )
        messages = _json_messages(value)
        return value if messages is None else _last(messages, record.where, column)
    # After Parquet a list of messages may be an array: any sequence of them will do.
    messages = list(value) if isinstance(value, Iterable) and not isinstance(value, Mapping) else []
    if not messages or not all(map(_is_message, messages)):
        raise UserError(
            f"{record.where}: column {column!r} must be a text or a list of messages with role and content, "
            f"found {value!r:.60}"
        )
    return _last(messages, record.where, column)


def _json_messages(text: str) -> list[Any] | None:
    """The messages that a text is the JSON of; None for any other text."""
    if not text.lstrip().startswith("[{"):
        return None
    try:
        messages = json.loads(text)
    except json.JSONDecodeError:
        return None
    said_by_assistant = all(map(_is_message, messages)) and messages[-1]["role"] == "assistant"
    return messages if said_by_assistant else None


def _is_message(item: Any) -> bool:
    return isinstance(item, Mapping) and {"role", "content"} <= item.keys()


def _last(messages: list[Any], where: str, column: str) -> str:
    contents = [message["content"] for message in messages if message["role"] == "assistant"]
    if not contents:
        raise UserError(f"{where}: no message in column {column!r} has the role 'assistant'")
    return str(contents[-1] or "")
