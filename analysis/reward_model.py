"""How good the frozen reward model was: accuracy on held-out pairs, by margin and length, and calibration."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from . import statistics
from .load import Study
from .metrics import MINUS
from .statistics import Estimate


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The pairs between two margins, or two differences of length."""

    low: float
    high: float
    accuracy: Estimate
    pairs: int

    @property
    def label(self) -> str:
        """0.5 to 1, below 2, 2 or more."""
        if self.low == -inf or self.high == inf:
            return f"below {_plain(self.high)}" if self.low == -inf else f"{_plain(self.low)} or more"
        return _plain(self.low) if self.low == self.high else f"{_plain(self.low)} to {_plain(self.high)}"


def _plain(number: float) -> str:
    return f"{number:g}".replace("-", MINUS)


@dataclass(frozen=True, kw_only=True)
class RewardModel:
    """One reward model, and the runs that were scored by it."""

    key: str
    runs: tuple[str, ...]
    accuracy: Estimate | None
    pairs: int
    by_margin: tuple[Bin, ...]
    by_length: tuple[Bin, ...]
    calibration: dict[str, float | None]
    """Expected calibration error, the temperature that mends it, mean and standard deviation of the scores."""

    def from_margin(self, margin: float) -> Estimate:
        """The accuracy on all pairs of this margin or more."""
        kept = [row for row in self.by_margin if row.low >= margin]
        return statistics.wilson(
            sum((row.accuracy.value or 0.0) * row.pairs for row in kept), sum(row.pairs for row in kept)
        )


def reward_models(study: Study) -> tuple[RewardModel, ...]:
    """Every reward model of the study; a fair study with a learned reward has one, others have none."""
    owners: dict[str, list[str]] = {}
    told: dict[str, dict[str, Any]] = {}
    for run in study.runs:
        about = run.manifest.get("reward_model")
        if about:
            key = str((run.manifest.get("artifacts") or {}).get("reward_model") or "not named")
            owners.setdefault(key, []).append(run.name)
            told.setdefault(key, about)
    return tuple(_reward_model(key, tuple(owners[key]), about) for key, about in told.items())


def _reward_model(key: str, runs: tuple[str, ...], about: dict[str, Any]) -> RewardModel:
    accuracy, pairs = about.get("accuracy"), int(about.get("pairs") or 0)
    return RewardModel(
        key=key,
        runs=runs,
        accuracy=statistics.wilson(accuracy * pairs, pairs) if accuracy is not None and pairs else None,
        pairs=pairs,
        by_margin=_bins(about.get("accuracy_by_margin")),
        by_length=_bins(about.get("accuracy_by_length")),
        calibration={name: about.get(name) for name in ("ece", "temperature", "mean", "std")},
    )


def _bins(rows: Sequence[Sequence[float | None]] | None) -> tuple[Bin, ...]:
    """Rows [low, high, accuracy, pairs]; an open end is null, an empty bin is left out."""
    found = []
    for low, high, accuracy, pairs in rows or ():
        if accuracy is not None and pairs:
            known = statistics.wilson(accuracy * pairs, int(pairs))
            ends = (-inf if low is None else float(low), inf if high is None else float(high))
            found.append(Bin(low=ends[0], high=ends[1], accuracy=known, pairs=int(pairs)))
    return tuple(found)
