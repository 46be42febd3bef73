"""Parses JSON text; an error names the line and the column at which the text is wrong."""

import json
from typing import Any


class JSONTextError(ValueError):
    """The text is not valid JSON."""

    def __init__(self, reason: str, line: int, column: int | None) -> None:
        super().__init__(reason)
        self.reason = reason
        """What the parser expected or found."""
        self.line = line
        """Line of the error, counted from 1 at the beginning of the text."""
        self.column = column
        """Column of the error in that line, counted from 1; None where the parser does not report one."""

    @property
    def position(self) -> str:
        """The column as a suffix of a message, such as " at column 7"; empty where it is unknown."""
        return "" if self.column is None else f" at column {self.column}"


def parse_json(text: str) -> Any:
    """The value of a JSON text. Raises JSONTextError where `json.loads` fails.

    Where the text ends too early, `json.loads` reports the position after trailing line breaks, which is column 1 of
    a line that the text does not have. Here the error is placed directly after the last character that is not blank.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line, column = line_and_column(text, min(error.pos, len(text.rstrip())))
        raise JSONTextError(error.msg, line, column) from error
    except RecursionError as error:
        raise JSONTextError("nested too deeply", 1, None) from error
    except ValueError as error:  # an integer with more digits than Python converts
        raise JSONTextError(str(error).partition(";")[0], 1, None) from error


def line_and_column(text: str, position: int) -> tuple[int, int]:
    """Line and column, counted from 1, of the character at `position`."""
    return text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)


def describe_utf8_error(data: bytes) -> str:
    """Where bytes are not UTF-8: "line 2, byte 7: invalid continuation byte" (from 1). Empty for valid UTF-8."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line_start = data.rfind(b"\n", 0, error.start)
        line = data.count(b"\n", 0, error.start) + 1
        return f"line {line}, byte {error.start - line_start}: {error.reason}"
    return ""
