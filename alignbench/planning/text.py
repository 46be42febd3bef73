"""The words of a plan: parts, sizes, times and prices as lines."""

import json
from collections.abc import Mapping
from typing import Any

Told = dict[str, list[str]]
"""Lines by what they are about."""


def page(told: Told) -> list[str]:
    """Lines under names, the names in a column of their own."""
    return [
        f"  {name if not number else '':<12}{line}" for name, found in told.items() for number, line in enumerate(found)
    ]


def typed(value: Any) -> str:
    """A setting as one types it: null, true, [a, b]."""
    return value if isinstance(value, str) else json.dumps(value)


def listed(sizes: Mapping[str, int]) -> str:
    """Parts with their GiB."""
    return ", ".join(f"{what} {gib(size)}" for what, size in sizes.items())


def gib(size: float) -> str:
    """Bytes as GiB in three digits."""
    return f"{size / (1 << 30):.3g}"


def counted(number: int, what: str) -> str:
    """A number of things: one run, 6 runs."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def duration(hours: float) -> str:
    """Hours, or minutes where they are fewer than two hours."""
    return f"{hours:.1f} h" if hours >= 2 else f"{hours * 60:.1f} min"


def judges(ahead: Mapping[str, Any]) -> Told:
    """What its judges would be asked, and what that would cost."""
    lines = []
    for judge in ahead.get("judges", ()):
        limit = "" if judge["limit"] is None else f", never more than ${judge['limit']:g}"
        key = "" if judge["key"] is None else f"; needs {judge['key']} in the environment"
        asked = f"{judge['calls']:,} calls, about ${judge['dollars']:.2f}"
        asked = asked if judge["calls"] else "compares the methods of a study"
        lines.append(f"{judge['model']}: {asked}{limit}{key}")
    return {"judge": lines} if lines else {}
