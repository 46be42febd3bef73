"""Quality of the reward models: accuracy on held-out preference pairs by margin and length, and calibration."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from .. import statistics
from ..statistics import Estimate
from ..study.load import Study
from ..study.metrics import MINUS

Ends = tuple[float, float]
BY_LENGTH: dict[Ends, str] = {(-inf, 0.0): "shorter", (0.0, 1.0): "as long", (1.0, inf): "longer"}
"""Length of the chosen answer relative to the rejected one."""


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Preference pairs with a margin or length difference in [low, high)."""

    low: float
    high: float
    label: str
    accuracy: Estimate
    pairs: int


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A quality threshold that a reward model must meet to be used."""

    name: str
    measured: float
    limit: float
    least: bool
    """Whether the limit is a minimum; otherwise it is a maximum."""

    @property
    def passed(self) -> bool:
        """Whether the threshold is met."""
        return self.measured >= self.limit if self.least else self.measured <= self.limit


@dataclass(frozen=True, kw_only=True)
class RewardModel:
    """One reward model, with the runs that used it."""

    key: str
    runs: tuple[str, ...]
    accuracy: Estimate | None
    pairs: int
    by_margin: tuple[Bin, ...]
    by_length: tuple[Bin, ...]
    gates: tuple[Gate, ...]
    calibration: dict[str, float | None]
    """Expected calibration error, temperature of the recalibration, mean and standard deviation of the scores."""

    def accuracy_from_margin(self, margin: float) -> Estimate:
        """Accuracy on all pairs with at least this margin."""
        kept = [row for row in self.by_margin if row.low >= margin]
        return statistics.wilson(
            sum((row.accuracy.value or 0.0) * row.pairs for row in kept), sum(row.pairs for row in kept)
        )


def summarize_reward_models(study: Study) -> tuple[RewardModel, ...]:
    """Summarize every reward model of the study; a fair study with a learned reward has one."""
    owners: dict[str, list[str]] = {}
    reports: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for run in study.runs:
        report = run.manifest.get("reward_model")
        if report:
            key = str((run.manifest.get("artifacts") or {}).get("reward_model") or "unknown")
            owners.setdefault(key, []).append(run.name)
            reports.setdefault(key, (report, run.config.get("reward_model") or {}))
    return tuple(_reward_model(key, tuple(owners[key]), *report) for key, report in reports.items())


def _reward_model(key: str, runs: tuple[str, ...], report: dict[str, Any], settings: dict[str, Any]) -> RewardModel:
    accuracy, pairs = report.get("accuracy"), int(report.get("pairs") or 0)
    return RewardModel(
        key=key,
        runs=runs,
        accuracy=statistics.wilson(accuracy * pairs, pairs) if accuracy is not None and pairs else None,
        pairs=pairs,
        by_margin=_bins(report.get("accuracy_by_margin")),
        by_length=_bins(report.get("accuracy_by_length"), BY_LENGTH),
        gates=_gates(report, settings),
        calibration={name: report.get(name) for name in ("ece", "temperature", "mean", "std")},
    )


def _gates(report: dict[str, Any], settings: dict[str, Any]) -> tuple[Gate, ...]:
    """The thresholds of the settings on validation pairs, with the measured values."""
    thresholds = (
        ("validation_accuracy", "min_accuracy", "accuracy"),
        ("validation_ece", "max_ece", "expected calibration error"),
    )
    return tuple(
        Gate(name=label, measured=report[name], limit=settings[limit], least=limit.startswith("min"))
        for name, limit, label in thresholds
        if report.get(name) is not None and settings.get(limit) is not None
    )


def _bins(rows: Sequence[Sequence[Any]] | None, labels: dict[Ends, str] | None = None) -> tuple[Bin, ...]:
    """Bins from rows [low, high, accuracy, pairs]; null is an open end, `labels` overrides the label of an interval."""
    found = []
    for low, high, accuracy, pairs in rows or ():
        if accuracy is not None and pairs:
            known = statistics.wilson(accuracy * pairs, int(pairs))
            ends = (-inf if low is None else float(low), inf if high is None else float(high))
            label = (labels or {}).get(ends) or _span(*ends)
            found.append(Bin(low=ends[0], high=ends[1], label=label, accuracy=known, pairs=int(pairs)))
    return tuple(found)


def _span(low: float, high: float) -> str:
    """Format an interval: 0.5 to 1, below 2, 2 or more."""
    low_text, high_text = (f"{end:g}".replace("-", MINUS) for end in (low, high))
    if low == -inf or high == inf:
        return f"below {high_text}" if low == -inf else f"{low_text} or more"
    return f"{low_text} to {high_text}"
