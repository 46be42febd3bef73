"""What each phase cost: models made once for all runs, and the training of each method, beside what was expected."""

from collections.abc import Sequence
from dataclasses import dataclass

from alignbench.core import record

from . import statistics
from .load import Run, Study
from .metrics import method_label

SHARED = {"sft": "SFT", "reward_model": "Reward model"}
"""The artifacts that are made once and shared, in the order of the pipeline."""
GB = 1e9
"""Expectations are declared in GB, powers of ten."""


@dataclass(frozen=True, kw_only=True)
class PhaseCost:
    """One phase: seconds, tokens and peak memory; of a method the means over its finished runs."""

    label: str
    arm: str | None
    note: str
    seconds: float | None
    tokens: float | None
    peak_memory_bytes: float | None
    expected_gb: tuple[float, float] | None = None

    @property
    def verdict(self) -> str:
        """Where the measured memory lies against what was expected; empty where nothing was."""
        if self.expected_gb is None or self.peak_memory_bytes is None:
            return ""
        low, high = self.expected_gb
        measured = self.peak_memory_bytes / GB
        if low <= measured <= high:
            return "as expected"
        limit, word = (high, "more") if measured > high else (low, "less")
        return f"{abs(measured / limit - 1):.0%} {word}"


def phase_costs(study: Study, expected: dict[str, tuple[float, float]]) -> tuple[PhaseCost, ...]:
    """The shared phases that were measured, then the reinforcement learning of every method."""
    shared = [cost for name, label in SHARED.items() for cost in _shared(study.runs, name, label)]
    return (*shared, *(_of_method(arm, study.of(arm), expected.get(arm.split(" ")[0])) for arm in study.arms))


def _shared(runs: Sequence[Run], name: str, label: str) -> list[PhaseCost]:
    """One row for each artifact of this kind; several would be an unfair study, and are all shown."""
    made: dict[str, dict[str, float]] = {}
    for run in runs:
        about = (run.manifest.get("artifact_costs") or {}).get(name)
        if about:
            made.setdefault(str((run.manifest.get("artifacts") or {}).get(name)), about)
    return [
        PhaseCost(
            label=label,
            arm=None,
            note="once for all runs" if len(made) == 1 else key,
            seconds=about.get("seconds"),
            tokens=about.get("tokens"),
            peak_memory_bytes=about.get("peak_memory_bytes"),
        )
        for key, about in made.items()
    ]


def _of_method(arm: str, runs: Sequence[Run], expected: tuple[float, float] | None) -> PhaseCost:
    spent = {"seconds": record.SECONDS, "tokens": record.TOKENS, "peak_memory_bytes": record.PEAK_MEMORY}
    means = {}
    for key, metric in spent.items():
        numbers = [run.ledger.get(key, run.metrics.get(metric)) for run in runs if run.status == "finished"]
        means[key] = statistics.mean([float(number) for number in numbers if number is not None])
    return PhaseCost(label=f"RL, {method_label(arm)}", arm=arm, note="mean of a run", expected_gb=expected, **means)
