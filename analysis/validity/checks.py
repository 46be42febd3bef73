"""A fairness check, and helpers that compare a value over runs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from ..study.load import Run
from ..study.metrics import counted, listed

Outcome = Literal["ok", "warning", "failed", "unknown"]


@dataclass(frozen=True)
class Check:
    """One check of the conditions; `evidence` has the observed values, `allow` is its name in analysis.allow."""

    name: str
    outcome: Outcome
    evidence: str
    allow: str = ""


def manifest_value(run: Run, *path: str) -> Any:
    """Value at a path in the manifest of a run; None if it is missing."""
    value: Any = run.manifest
    for name in path:
        value = (value or {}).get(name)
    return value


def shorten(value: object) -> str:
    """Shorten a hash to its first and last characters; other values are unchanged."""
    text = str(value)
    return f"{text[:6]}\N{HORIZONTAL ELLIPSIS}{text[-4:]}" if len(text) > 24 else text


def _by_value(runs: Iterable[Run], value: Callable[[Run], Any]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(str(value(run)), []).append(run)
    return groups


def format_runs(runs: list[Run]) -> str:
    """Format a list of runs: names of up to three, else their number."""
    return listed([run.name for run in runs]) if len(runs) <= 3 else f"{len(runs)} runs"


def check_equal(
    runs: list[Run], name: str, value: Callable[[Run], Any], allow: str = "", otherwise: Outcome = "failed"
) -> Check:
    """Check that every run has the same value; unknown if a run did not record it."""
    missing = [run for run in runs if value(run) in (None, {}, "")]
    if missing or not runs:
        why = f"not recorded by {format_runs(missing)}" if missing else "no finished run"
        return Check(name, "unknown", why, allow)
    groups = _by_value(runs, value)
    if len(groups) == 1:
        return Check(name, "ok", f"{next(iter(groups))} in all {counted(len(runs), 'run')}", allow)
    return Check(name, otherwise, "; ".join(f"{text} in {format_runs(group)}" for text, group in groups.items()), allow)
