"""What each phase cost: models made once for all runs, and the training of each method, beside what was expected."""

from collections.abc import Sequence
from dataclasses import dataclass

from alignbench.core import metric_names

from .. import statistics
from ..study.answers import known
from ..study.load import Run, Study
from ..study.metrics import method_label

SHARED = {"sft": "SFT", "reward_model": "Reward model"}
"""The artifacts that are made once and shared, in the order of the pipeline."""
GB = 1e9
"""Expectations are declared in GB, powers of ten."""


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """One stage: seconds, tokens and peak memory; of a method the means over its finished runs."""

    stage: str
    method: str | None
    note: str
    seconds: float | None
    tokens: float | None
    peak_memory_bytes: float | None
    expected_gb: tuple[float, float] | None = None

    @property
    def label(self) -> str:
        """The phase, and whose it was."""
        return self.stage if self.method is None else f"{self.stage}, {method_label(self.method)}"

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


def compute_stage_costs(study: Study, expected: dict[str, tuple[float, float]]) -> tuple[StageCost, ...]:
    """The shared phases that were measured, then the learning and the evaluation of every method."""
    shared = [cost for name, label in SHARED.items() for cost in _shared(study.runs, name, label)]
    own = [
        row
        for method in study.methods
        for row in _of_method(method, study.runs_of(method), expected.get(method.split(" ")[0]))
    ]
    return (*shared, *own)


def _shared(runs: Sequence[Run], name: str, label: str) -> list[StageCost]:
    """One row for each artifact of this kind; several would be an unfair study, and are all shown."""
    made: dict[str, dict[str, float]] = {}
    for run in runs:
        about = (run.manifest.get("artifact_costs") or {}).get(name)
        if about:
            made.setdefault(str((run.manifest.get("artifacts") or {}).get(name)), about)
    return [
        StageCost(
            stage=label,
            method=None,
            note="once for all runs" if len(made) == 1 else key,
            seconds=about.get("seconds"),
            tokens=about.get("tokens"),
            peak_memory_bytes=about.get("peak_memory_bytes"),
        )
        for key, about in made.items()
    ]


def _of_method(method: str, runs: Sequence[Run], expected: tuple[float, float] | None) -> list[StageCost]:
    """Reinforcement learning, and the evaluation at its end where that was timed; peak memory is of the whole run."""
    done = [run for run in runs if run.status == "finished"]
    spent = {
        key: statistics.mean(
            [float(n) for run in done if (n := run.ledger.get(key, run.metrics.get(name))) is not None]
        )
        for key, name in (
            ("seconds", metric_names.SECONDS),
            ("tokens", metric_names.TOKENS),
            ("peak_memory_bytes", metric_names.PEAK_MEMORY),
        )
    }
    note = "mean of a run"
    rows = [StageCost(stage="RL", method=method, note=note, expected_gb=expected, **spent)]
    seconds = statistics.mean(known(runs, metric_names.EVALUATION_SECONDS))
    if seconds is not None:
        rows.append(
            StageCost(
                stage="Final evaluation", method=method, note=note, seconds=seconds, tokens=None, peak_memory_bytes=None
            )
        )
    return rows
