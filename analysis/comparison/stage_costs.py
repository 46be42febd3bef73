"""Cost by stage: shared models (SFT, reward model), then RL and evaluation of each method, with expected memory."""

from collections.abc import Sequence
from dataclasses import dataclass

from alignbench.core import metric_names

from .. import statistics
from ..study.answers import final_values
from ..study.load import Run, Study
from ..study.metrics import method_label

SHARED = {"sft": "SFT", "reward_model": "Reward model"}
"""Artifacts that are shared by all runs, in the order of the pipeline."""
GB = 1e9
"""Expected memory is declared in GB (10^9 bytes)."""


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """Cost of one stage; for a method the mean over its finished runs. `expected_gb`: expected range of peak memory."""

    stage: str
    method: str | None
    note: str
    seconds: float | None
    tokens: float | None
    peak_memory_bytes: float | None
    expected_gb: tuple[float, float] | None = None

    @property
    def label(self) -> str:
        """The stage and its method."""
        return self.stage if self.method is None else f"{self.stage}, {method_label(self.method)}"

    @property
    def verdict(self) -> str:
        """Measured memory compared with the expected range; empty if no range is declared."""
        if self.expected_gb is None or self.peak_memory_bytes is None:
            return ""
        low, high = self.expected_gb
        measured = self.peak_memory_bytes / GB
        if low <= measured <= high:
            return "as expected"
        limit, word = (high, "more") if measured > high else (low, "less")
        return f"{abs(measured / limit - 1):.0%} {word}"


def compute_stage_costs(study: Study, expected: dict[str, tuple[float, float]]) -> tuple[StageCost, ...]:
    """Compute the cost of the shared stages, then of RL and evaluation of every method; `expected`: GB by algorithm."""
    shared = [cost for name, label in SHARED.items() for cost in _shared(study.runs, name, label)]
    own = [
        row
        for method in study.methods
        for row in _of_method(method, study.runs_of(method), expected.get(method.split(" ")[0]))
    ]
    return (*shared, *own)


def _shared(runs: Sequence[Run], name: str, label: str) -> list[StageCost]:
    """One row per artifact of this kind; a fair study has one."""
    by_key: dict[str, dict[str, float]] = {}
    for run in runs:
        costs = (run.manifest.get("artifact_costs") or {}).get(name)
        if costs:
            by_key.setdefault(str((run.manifest.get("artifacts") or {}).get(name)), costs)
    return [
        StageCost(
            stage=label,
            method=None,
            note="once for all runs" if len(by_key) == 1 else key,
            seconds=costs.get("seconds"),
            tokens=costs.get("tokens"),
            peak_memory_bytes=costs.get("peak_memory_bytes"),
        )
        for key, costs in by_key.items()
    ]


def _of_method(method: str, runs: Sequence[Run], expected: tuple[float, float] | None) -> list[StageCost]:
    """RL, and the final evaluation if it was timed; peak memory is that of the whole run."""
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
    seconds = statistics.mean(final_values(runs, metric_names.EVALUATION_SECONDS))
    if seconds is not None:
        rows.append(
            StageCost(
                stage="Final evaluation", method=method, note=note, seconds=seconds, tokens=None, peak_memory_bytes=None
            )
        )
    return rows
