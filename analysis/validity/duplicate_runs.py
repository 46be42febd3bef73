"""Finds runs with identical results, which suggest that a seed or a method was not applied."""

from hashlib import sha256

import numpy as np

from alignbench.core import metric_names

from ..study.load import Run
from ..study.metrics import listed
from .checks import Check, format_runs

FEW_NUMBERS = 3
"""Runs with fewer final metrics than this are not compared by them: they may coincide by chance."""


def find_duplicate_runs(runs: list[Run]) -> list[tuple[str, list[Run]]]:
    """Find groups of runs with identical curves or identical final metrics; returns what is identical, and the runs."""
    found: list[tuple[str, list[Run]]] = []
    for what, signature in (("curves", _hash_curves), ("final numbers", _final_metrics)):
        groups: dict[object, list[Run]] = {}
        for run in runs:
            groups.setdefault(signature(run) or id(run), []).append(run)
        known = [group for _, group in found]
        found += [(what, group) for group in groups.values() if len(group) > 1 and group not in known]
    return found


def _hash_curves(run: Run) -> str:
    """Hash of all curves except machine costs; empty without curves."""
    digest, measured = (
        sha256(),
        [name for name in run.curves if not name.startswith((metric_names.COST_PREFIX, "budget/"))],
    )
    for name in sorted(measured):
        curve = run.curves[name]
        digest.update(name.encode() + np.array(curve.steps).tobytes() + np.array(curve.values).tobytes())
    return digest.hexdigest() if measured else ""


def _final_metrics(run: Run) -> str:
    """Final metrics as text; empty if they are too few or equal those before RL, since such runs may coincide."""
    ends = {name: value for name, value in run.metrics.items() if name.startswith("final/")}
    own = {name: value for name, value in ends.items() if not name.startswith("final/start_")}
    moved = any(value != ends.get(f"final/start_{name.removeprefix('final/')}", value) for name, value in own.items())
    if run.curves and (len(own) < FEW_NUMBERS or not moved):
        return ""
    return repr(sorted(own.items())) if own else ""


def check_seeds_applied(runs: list[Run], duplicates: list[tuple[str, list[Run]]]) -> Check:
    """Check that no two seeds of a method have identical results."""
    name = "Seeds make a difference"
    same = [(what, group) for what, group in duplicates if len({run.method for run in group}) < len(group)]
    if same:
        return Check(name, "failed", f"{_format_duplicates(same)}: the seed is probably not applied", "identical")
    return Check(name, "ok" if len(runs) > 1 else "unknown", "no two runs of a method have identical numbers")


def check_methods_applied(methods: list[str], duplicates: list[tuple[str, list[Run]]]) -> Check:
    """Check that no two methods have identical results."""
    name = "Methods make a difference"
    same = [(what, group) for what, group in duplicates if len({run.method for run in group}) > 1]
    if same:
        return Check(name, "failed", f"{_format_duplicates(same)}: the method is probably not applied", "identical")
    several = len(methods) > 1
    return Check(
        name, "ok" if several else "unknown", "no two methods have identical numbers" if several else "only one method"
    )


def _format_duplicates(duplicates: list[tuple[str, list[Run]]]) -> str:
    kinds = dict.fromkeys(what for what, _ in duplicates)
    return "; ".join(f"identical {kind} in {listed([format_runs(group) for what, group in duplicates if what == kind])}"
                     for kind in kinds)  # fmt: skip
