"""Format the sections of a plan: sizes, durations, counts and costs as lines of text."""

import json
from collections.abc import Mapping
from typing import Any

Sections = dict[str, list[str]]
"""Lines of text by section name."""


def format_sections(sections: Sections) -> list[str]:
    """One line of text per line of each section, with the section names in a column of their own."""
    return [
        f"  {name if not number else '':<12}{line}"
        for name, lines in sections.items()
        for number, line in enumerate(lines)
    ]


def format_value(value: Any) -> str:
    """A setting in the syntax of the command line: null, true, [a, b]."""
    return value if isinstance(value, str) else json.dumps(value)


def format_sizes(sizes: Mapping[str, int]) -> str:
    """Comma-separated names, each with its size in GiB."""
    return ", ".join(f"{name} {format_gib(size)}" for name, size in sizes.items())


def format_gib(size: float) -> str:
    """Bytes as GiB with three significant digits."""
    return f"{size / (1 << 30):.3g}"


def format_count(number: int, noun: str) -> str:
    """A number with its noun in the singular or plural: 1 run, 6 runs."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def format_duration(hours: float) -> str:
    """Hours, or minutes below two hours."""
    return f"{hours:.1f} h" if hours >= 2 else f"{hours * 60:.1f} min"


def format_judge_costs(forecast: Mapping[str, Any]) -> Sections:
    """The calls and the cost of each LLM judge, as a section of the plan."""
    lines = []
    for judge in forecast.get("judges", ()):
        limit = "" if judge["limit"] is None else f", at most ${judge['limit']:g}"
        key = "" if judge["key"] is None else f"; requires {judge['key']} in the environment"
        cost = f"{judge['calls']:,} calls, about ${judge['dollars']:.2f}"
        cost = cost if judge["calls"] else "compares the methods of a study"
        lines.append(f"{judge['model']}: {cost}{limit}{key}")
    return {"judge": lines} if lines else {}
