"""The data of all sections as JSON, by keys that other programs rely on."""

import json
from collections.abc import Sequence
from typing import Any

from ..findings import Findings
from .section import Section
from .sections import SECTIONS


def summary(findings: Findings, sections: Sequence[Section] = SECTIONS) -> dict[str, Any]:
    """The whole report as plain data; a number that does not exist is null, with a reason beside it.

    Raises ValueError when two sections write the same key.
    """
    found: dict[str, Any] = {}
    for section in sections:
        data = section.data(findings)
        if twice := found.keys() & data.keys():
            raise ValueError(f"section {section.name}: another section already writes {', '.join(sorted(twice))}")
        found |= data
    return found


def as_json(findings: Findings, indent: int | None = 1, sections: Sequence[Section] = SECTIONS) -> str:
    """The summary as JSON text; `indent=None` is the most compact form."""
    separators = None if indent else (",", ":")
    data = summary(findings, sections)
    return json.dumps(data, indent=indent, separators=separators, allow_nan=False, ensure_ascii=True)
