"""Reads the JSON, JSONL and YAML files of runs; names invalid files, and notes an incomplete last line."""

from pathlib import Path
from typing import Any

import yaml

from alignbench.core.errors import UserError
from alignbench.core.json_text import JSONTextError, parse_json


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty if the file does not exist. Raises UserError for invalid JSON."""
    if not path.is_file():
        return {}
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except JSONTextError as error:
        where = f"{path}, line {error.line}"
        raise UserError(f"{where}: not valid JSON ({error.reason}{error.position}). Restore or delete it.") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; empty if the file does not exist. Raises UserError for invalid YAML."""
    if not path.is_file():
        return {}
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({error}). Restore or delete it.") from error


def read_lines(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The rows of a JSONL file; an incomplete last line, left by a killed process, is skipped and noted.

    Lines end at line feeds only: answers may contain other characters at which str.splitlines splits.
    """
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        lines = list(file)
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(parse_json(line))
        except JSONTextError as error:
            if number < len(lines):
                raise UserError(f"{path}, line {number}: not valid JSON ({error.reason}{error.position}).") from error
            notes.append(f"The last line of {path.parent.name}/{path.name} was cut short and is left out.")
    return rows
