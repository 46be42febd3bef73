"""How good the frozen reward model was: accuracy on held-out pairs, by margin and length, and calibration."""

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
"""What the chosen answer is, against the rejected one."""


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The pairs from one margin, or difference of length, up to but not including another."""

    low: float
    high: float
    label: str
    accuracy: Estimate
    pairs: int


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a reward model had to reach before it could be used."""

    name: str
    measured: float
    limit: float
    least: bool
    """Whether the limit is the least; else it is the most."""

    @property
    def passed(self) -> bool:
        """Whether it was reached."""
        return self.measured >= self.limit if self.least else self.measured <= self.limit


@dataclass(frozen=True, kw_only=True)
class RewardModel:
    """One reward model, and the runs that were scored by it."""

    key: str
    runs: tuple[str, ...]
    accuracy: Estimate | None
    pairs: int
    by_margin: tuple[Bin, ...]
    by_length: tuple[Bin, ...]
    gates: tuple[Gate, ...]
    calibration: dict[str, float | None]
    """Expected calibration error, the temperature that mends it, mean and standard deviation of the scores."""

    def accuracy_from_margin(self, margin: float) -> Estimate:
        """The accuracy on all pairs of this margin or more."""
        kept = [row for row in self.by_margin if row.low >= margin]
        return statistics.wilson(
            sum((row.accuracy.value or 0.0) * row.pairs for row in kept), sum(row.pairs for row in kept)
        )


def summarize_reward_models(study: Study) -> tuple[RewardModel, ...]:
    """Every reward model of the study; a fair study with a learned reward has one, others have none."""
    owners: dict[str, list[str]] = {}
    told: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for run in study.runs:
        about = run.manifest.get("reward_model")
        if about:
            key = str((run.manifest.get("artifacts") or {}).get("reward_model") or "not named")
            owners.setdefault(key, []).append(run.name)
            told.setdefault(key, (about, run.config.get("reward_model") or {}))
    return tuple(_reward_model(key, tuple(owners[key]), *about) for key, about in told.items())


def _reward_model(key: str, runs: tuple[str, ...], about: dict[str, Any], settings: dict[str, Any]) -> RewardModel:
    accuracy, pairs = about.get("accuracy"), int(about.get("pairs") or 0)
    return RewardModel(
        key=key,
        runs=runs,
        accuracy=statistics.wilson(accuracy * pairs, pairs) if accuracy is not None and pairs else None,
        pairs=pairs,
        by_margin=_bins(about.get("accuracy_by_margin")),
        by_length=_bins(about.get("accuracy_by_length"), BY_LENGTH),
        gates=_gates(about, settings),
        calibration={name: about.get(name) for name in ("ece", "temperature", "mean", "std")},
    )


def _gates(about: dict[str, Any], settings: dict[str, Any]) -> tuple[Gate, ...]:
    """What the settings asked of it on validation pairs, and what it reached."""
    asked = (
        ("validation_accuracy", "min_accuracy", "ranked right"),
        ("validation_ece", "max_ece", "calibration error"),
    )
    return tuple(
        Gate(name=words, measured=about[name], limit=settings[limit], least=limit.startswith("min"))
        for name, limit, words in asked
        if about.get(name) is not None and settings.get(limit) is not None
    )


def _bins(rows: Sequence[Sequence[Any]] | None, words: dict[Ends, str] | None = None) -> tuple[Bin, ...]:
    """Rows [low, high, accuracy, pairs] without the upper end, null where open; some have a name of their own."""
    found = []
    for low, high, accuracy, pairs in rows or ():
        if accuracy is not None and pairs:
            known = statistics.wilson(accuracy * pairs, int(pairs))
            ends = (-inf if low is None else float(low), inf if high is None else float(high))
            label = (words or {}).get(ends) or _span(*ends)
            found.append(Bin(low=ends[0], high=ends[1], label=label, accuracy=known, pairs=int(pairs)))
    return tuple(found)


def _span(low: float, high: float) -> str:
    """0.5 to 1, below 2, 2 or more."""
    low_text, high_text = (f"{end:g}".replace("-", MINUS) for end in (low, high))
    if low == -inf or high == inf:
        return f"below {high_text}" if low == -inf else f"{low_text} or more"
    return f"{low_text} to {high_text}"
