"""Options of a report: those of the command line, and those that the runs declared under `analysis`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignbench.core import metric_names
from alignbench.core.errors import UserError

from .load import Study

DEFAULTS = (metric_names.FINAL_GOLD, metric_names.FINAL_ACCURACY, "final/avg_reward")
"""The headline metric if none was declared: the first that a finished run measured."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the command line; None leaves the choice to the config of the runs."""

    study: str
    output_dir: Path = Path("outputs")
    baseline: str | None = None
    tracking_uri: str | None = None
    metric: str | None = None
    margin: float | None = None
    judge: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Declared:
    """The options in effect: config section `analysis`, overridden by the command line."""

    metric: str
    baseline: str
    margin: float | None
    pairing: str
    allow: tuple[str, ...]
    price_per_hour: float | None
    expected_memory_gb: dict[str, tuple[float, float]]


def declare(study: Study, options: Options) -> Declared:
    """Resolve the options: command line first, then the config of the runs, then the defaults.

    Raises UserError for an unknown baseline or metric.
    """
    sections = [run.config["analysis"] for run in study.runs if run.config.get("analysis")]
    section: dict[str, Any] = sections[0] if sections else {}
    methods = study.methods
    baseline = options.baseline or section.get("baseline") or ("ppo" if "ppo" in methods else min(methods))
    if baseline not in methods:
        if options.baseline:
            raise UserError(f"baseline={baseline}: no method of study {study.name}; it has {', '.join(methods)}.")
        baseline = min(methods)
    margin = options.margin if options.margin is not None else section.get("margin")
    return Declared(
        metric=_resolve_metric(study, options.metric or section.get("metric")),
        baseline=baseline,
        margin=None if margin is None else float(margin),
        pairing=section.get("pairing") or "none",
        allow=tuple(section.get("allow") or ()),
        price_per_hour=section.get("price_per_hour"),
        expected_memory_gb={
            method: (low, high) for method, (low, high) in (section.get("expected_memory_gb") or {}).items()
        },
    )


def _resolve_metric(study: Study, requested: str | None) -> str:
    """The requested metric, else gold reward, else accuracy, else reward, as far as measured."""
    finished = [run for run in study.runs if run.status == "finished"]
    measured = (name for name in DEFAULTS if any(name in run.metrics for run in finished))
    name = requested or next(measured, DEFAULTS[-1] if finished else metric_names.FINAL_ACCURACY)
    if finished and not any(name in run.metrics for run in finished):
        there = sorted({metric for run in finished for metric in run.metrics if metric.startswith("final/")})
        raise UserError(
            f"metric={name}: no finished run of study {study.name} has it. "
            f"Choose one with metric=NAME or analysis.metric; available: {', '.join(there) or 'none'}."
        )
    return name
