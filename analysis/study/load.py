"""Loads a study: planned runs, run folders and metrics from MLflow; every run is included."""

import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from alignbench.core.comparability import label_methods
from alignbench.core.errors import UserError

from .files import read_json, read_lines, read_yaml
from .mlflow_reader import (
    CURVES,
    Curve,
    Tracked,
    TrackerUnavailable,
    default_uri,
    make_curve,
    store_exists,
    tracked_runs,
    tracked_studies,
)

Status = Literal["finished", "failed", "interrupted", "running", "missing"]
TRAINED = ("rl", "evaluate")
FROM_MLFLOW = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "interrupted"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One training run; `counted` is False for a second run of the same method and seed."""

    method: str
    model: str
    seed: int
    key: str
    folder: str
    status: Status
    reason: str | None
    started: str | None = None
    finished: str | None = None
    resumed: int = 0
    determinism: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    answers: tuple[dict[str, Any], ...] = ()
    planned: bool = False
    counted: bool = True

    @property
    def name(self) -> str:
        """Method and seed: grpo seed 123."""
        return f"{self.method} seed {self.seed}"

    @property
    def ledger(self) -> dict[str, float]:
        """The budget that the run spent; empty if it wrote none."""
        return self.manifest.get("ledger") or {}


@dataclass(frozen=True, kw_only=True)
class Study:
    """All runs of a study, and notes on anomalies found while loading them."""

    name: str
    output_dir: Path
    runs: tuple[Run, ...]
    notes: tuple[str, ...]
    planned: bool

    @property
    def methods(self) -> list[str]:
        """The compared methods in their fixed order: ppo first, then as planned."""
        found = list(dict.fromkeys(run.method for run in self.runs))
        return sorted(found, key=lambda method: (method != "ppo", found.index(method)))

    @property
    def seeds(self) -> list[int]:
        """Every seed of the study, in the order of the plan."""
        return list(dict.fromkeys(run.seed for run in self.runs))

    def runs_of(self, method: str) -> list[Run]:
        """The counted runs of one method, one per seed and in the order of the seeds."""
        return sorted((run for run in self.runs if run.method == method and run.counted), key=lambda run: run.seed)


def load_study(name: str, output_dir: Path, tracking_uri: str | None = None) -> Study:
    """Load the runs of a study from `output_dir/runs/<name>` and from MLflow.

    Raises UserError when no run of this study exists, or when one of its files cannot be read.
    """
    if not re.fullmatch(r"[\w.+-]+", name):
        raise UserError(f"study={name!r}: a study name has letters, digits, '_', '-', '+' and '.' only.")
    uri, home = resolve_tracking_uri(name, output_dir, tracking_uri), output_dir / "runs" / name
    notes: list[str] = []
    tracked = _tracked(uri, name, notes)
    plan = read_plan(home / "study.json")
    folders = [path.parent for path in sorted(home.glob("*/status.json"))]
    if not plan and not folders and not tracked:
        raise UserError(format_unknown_study(name, output_dir, uri))
    found = {folder.name: _from_folder(folder, output_dir, tracked, notes) for folder in folders}
    found |= _only_tracked(tracked, found, output_dir)
    runs = _counted(_in_plan(plan, found, name))
    notes += [
        f"{run.name} has a second run in {run.folder}; it is listed and not counted." for run in runs if not run.counted
    ]
    return Study(name=name, output_dir=output_dir, runs=tuple(runs), notes=tuple(notes), planned=bool(plan))


def resolve_tracking_uri(name: str, output_dir: Path, requested: str | None) -> str:
    """The MLflow store of a study: the requested one, else that of its config, else that of the output folder."""
    first = min((output_dir / "runs" / name).glob("*/config.yaml"), default=None)
    declared = (read_yaml(first).get("tracking") or {}).get("uri") if first else None
    return requested or declared or default_uri(output_dir)


def _tracked(uri: str, name: str, notes: list[str]) -> dict[str, Tracked]:
    """The runs of a study in MLflow; none, and a note, if MLflow is unavailable."""
    try:
        return tracked_runs(uri, name) if store_exists(uri) else {}
    except TrackerUnavailable as error:
        notes.append(f"{error}; metrics are read from the files of the runs.")
        return {}


def format_unknown_study(name: str, output_dir: Path, uri: str) -> str:
    """The error message for a study without runs."""
    there = {path.name for path in (output_dir / "runs").glob("*") if path.is_dir()}
    if store_exists(uri):
        with suppress(TrackerUnavailable):
            there |= tracked_studies(uri)
    known = f"Known studies: {', '.join(sorted(there))}." if there else "There is no study yet; run one first."
    return f"study={name}: no run of this study in {output_dir}/runs or in MLflow. {known}"


def read_plan(path: Path) -> list[dict[str, Any]]:
    """The runs that a sweep planned, in order; none when the runs were started individually."""
    return read_json(path).get("planned", []) if path.is_file() else []


def _from_folder(folder: Path, output_dir: Path, tracked: dict[str, Tracked], notes: list[str]) -> Run:
    status, config = read_json(folder / "status.json"), read_yaml(folder / "config.yaml")
    metrics, curves = _numbers(folder, tracked.get(status["key"]), notes)
    return Run(
        method=status["method"],
        model=status["model"],
        seed=int(status["seed"]),
        key=status["key"],
        folder=str(folder.relative_to(output_dir)),
        status=status["status"],
        reason=status.get("reason"),
        started=status.get("started"),
        finished=status.get("finished"),
        resumed=status.get("resumed") or 0,
        determinism=status.get("determinism"),
        config=config,
        manifest=read_json(folder / "manifest.json"),
        metrics=metrics,
        curves=curves,
        answers=tuple(read_lines(folder / "eval.jsonl", notes)),
        planned=False,
    )


def _numbers(folder: Path, tracked: Tracked | None, notes: list[str]) -> tuple[dict[str, float], dict[str, Curve]]:
    """The metrics of a run from MLflow, or from its metrics.jsonl if MLflow lacks some.

    Curves are read from metrics.jsonl if it exists: it has the same points, and reading the curves of one long run from
    MLflow takes a second.
    """
    written = _written_curves(folder, notes)
    if tracked and written.keys() <= tracked.metrics.keys():
        drawn = {name: curve for name, curve in written.items() if name.startswith(CURVES)}
        return tracked.metrics, drawn or tracked.curves()
    if written:
        lack = "MLflow lacks some of its metrics" if tracked else "it is not in MLflow"
        notes.append(f"{folder.name}: {lack}; its metrics are read from metrics.jsonl.")
    return {name: curve.values[-1] for name, curve in written.items()}, written


def _written_curves(folder: Path, notes: list[str]) -> dict[str, Curve]:
    points: dict[str, dict[int, float]] = {}
    for row in read_lines(folder / "metrics.jsonl", notes):
        if row["phase"] in TRAINED:
            for name, value in {**row["metrics"], **row.get("not_finite", {})}.items():
                points.setdefault(name, {})[int(row["step"])] = float(value)
    return {name: make_curve(values) for name, values in points.items()}


def _only_tracked(tracked: dict[str, Tracked], found: dict[str, Run], output_dir: Path) -> dict[str, Run]:
    """Runs that are in MLflow and whose folder is missing."""
    known = {run.key for run in found.values()}
    return {run.name: _bare(run, key, output_dir) for key, run in tracked.items() if key not in known}


def _bare(run: Tracked, key: str, output_dir: Path) -> Run:
    status = FROM_MLFLOW.get(run.status, "running")
    return Run(
        method=run.tags["method"],
        model=run.tags.get("model", ""),
        seed=int(run.tags["seed"]),
        key=key,
        folder=f"runs/{run.tags['study']}/{run.name}",
        status=status,  # type: ignore[arg-type]  # the values of FROM_MLFLOW are Status words
        reason="its folder is missing; read from MLflow only",
        metrics=run.metrics,
        curves=run.curves(),
    )


def _in_plan(plan: list[dict[str, Any]], found: dict[str, Run], study: str) -> list[Run]:
    """Planned runs first and in order, then the others; methods get distinct names."""
    labels = label_methods(plan)
    runs = []
    for entry, label in zip(plan, labels, strict=True):
        name = Path(entry["run_dir"]).name
        run = found.pop(name) if name in found else _missing(entry, study)
        runs.append(replace(run, method=label, planned=True))
    return runs + list(found.values())


def _missing(entry: dict[str, Any], study: str) -> Run:
    return Run(
        method=entry["method"],
        model=entry.get("model", ""),
        seed=int(entry["seed"]),
        key=entry["key"],
        folder=f"runs/{study}/{Path(entry['run_dir']).name}",
        status="missing",
        reason="planned and never started",
        planned=True,
    )


def _counted(runs: list[Run]) -> list[Run]:
    """Of several runs of one method and seed, one counts: the planned, then the finished, then the newest."""
    best: dict[tuple[str, int], Run] = {}
    for run in runs:
        rival = best.get((run.method, run.seed))
        if rival is None or _rank(run) > _rank(rival):
            best[run.method, run.seed] = run
    return [replace(run, counted=best[run.method, run.seed] is run) for run in runs]


def _rank(run: Run) -> tuple[bool, bool, str]:
    return run.planned, run.status == "finished", run.finished or run.started or ""
