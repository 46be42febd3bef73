"""Runs with the very same numbers: then a seed, or a method, was probably not applied."""

from hashlib import sha256

import numpy as np

from alignbench.core import metric_names

from ..study.load import Run
from ..study.metrics import listed
from .checks import Check, who

FEW_NUMBERS = 3
"""Final numbers that two runs may share by chance."""


def find_duplicate_runs(runs: list[Run]) -> list[tuple[str, list[Run]]]:
    """Runs that measured the very same numbers, and which numbers; they did the same thing."""
    found: list[tuple[str, list[Run]]] = []
    for what, mark in (("curves", _curves_of), ("final numbers", _finals_of)):
        groups: dict[object, list[Run]] = {}
        for run in runs:
            groups.setdefault(mark(run) or id(run), []).append(run)
        known = [group for _, group in found]
        found += [(what, group) for group in groups.values() if len(group) > 1 and group not in known]
    return found


def _curves_of(run: Run) -> str:
    """All curves in a few characters, machine costs left out."""
    digest, drawn = (
        sha256(),
        [name for name in run.curves if not name.startswith((metric_names.COST_PREFIX, "budget/"))],
    )
    for name in sorted(drawn):
        curve = run.curves[name]
        digest.update(name.encode() + np.array(curve.steps).tobytes() + np.array(curve.values).tobytes())
    return digest.hexdigest() if drawn else ""


def _finals_of(run: Run) -> str:
    """The numbers measured at the end; they prove nothing of a run that did not move from its start."""
    ends = {name: value for name, value in run.metrics.items() if name.startswith("final/")}
    own = {name: value for name, value in ends.items() if not name.startswith("final/start_")}
    moved = any(value != ends.get(f"final/start_{name.removeprefix('final/')}", value) for name, value in own.items())
    if run.curves and (len(own) < FEW_NUMBERS or not moved):
        return ""
    return repr(sorted(own.items())) if own else ""


def check_seeds_applied(runs: list[Run], twins: list[tuple[str, list[Run]]]) -> Check:
    """Fails where two seeds of a method are twins."""
    name = "Seeds make a difference"
    same = [(what, group) for what, group in twins if len({run.method for run in group}) < len(group)]
    if same:
        return Check(name, "failed", f"{_told(same)}: the seed is probably not applied", "identical")
    return Check(name, "ok" if len(runs) > 1 else "unknown", "no two runs of a method have identical numbers")


def check_methods_applied(methods: list[str], twins: list[tuple[str, list[Run]]]) -> Check:
    """Fails where two methods have twins."""
    name = "Methods make a difference"
    same = [(what, group) for what, group in twins if len({run.method for run in group}) > 1]
    if same:
        return Check(name, "failed", f"{_told(same)}: the method is probably not applied", "identical")
    several = len(methods) > 1
    return Check(
        name, "ok" if several else "unknown", "no two methods have identical numbers" if several else "only one method"
    )


def _told(twins: list[tuple[str, list[Run]]]) -> str:
    kinds = dict.fromkeys(what for what, _ in twins)
    return "; ".join(f"identical {kind} in {listed([who(group) for what, group in twins if what == kind])}"
                     for kind in kinds)  # fmt: skip
