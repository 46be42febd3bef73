"""One question about the conditions of a study, and how runs are asked whether they agree."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from ..study.load import Run
from ..study.metrics import counted, listed

Outcome = Literal["ok", "warning", "failed", "unknown"]


@dataclass(frozen=True)
class Check:
    """One question about the conditions; `allow` is the name that permits it to fail."""

    name: str
    outcome: Outcome
    evidence: str
    allow: str = ""


def at(run: Run, *path: str) -> Any:
    """What the manifest says at a path; None where it says nothing."""
    here: Any = run.manifest
    for name in path:
        here = (here or {}).get(name)
    return here


def short(value: object) -> str:
    """A hash by its ends, other values as they are."""
    text = str(value)
    return f"{text[:6]}\N{HORIZONTAL ELLIPSIS}{text[-4:]}" if len(text) > 24 else text


def _by_value(runs: Iterable[Run], value: Callable[[Run], Any]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(str(value(run)), []).append(run)
    return groups


def who(runs: list[Run]) -> str:
    """Names few runs, counts many."""
    return listed([run.name for run in runs]) if len(runs) <= 3 else f"{len(runs)} runs"


def same(
    runs: list[Run], name: str, value: Callable[[Run], Any], allow: str = "", otherwise: Outcome = "failed"
) -> Check:
    """Every run has the same value; unknown when a run did not write it down."""
    silent = [run for run in runs if value(run) in (None, {}, "")]
    if silent or not runs:
        why = f"not written down by {who(silent)}" if silent else "no finished run"
        return Check(name, "unknown", why, allow)
    groups = _by_value(runs, value)
    if len(groups) == 1:
        return Check(name, "ok", f"{next(iter(groups))} in all {counted(len(runs), 'run')}", allow)
    return Check(name, otherwise, "; ".join(f"{text} in {who(group)}" for text, group in groups.items()), allow)
