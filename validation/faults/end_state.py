"""The end state of a run that must not depend on interruptions: metrics, weights, responses and MLflow runs."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from alignbench.store.artifacts import find_damage
from alignbench.store.disk import sha256

State = dict[str, Any]


def end_state(output_dir: Path, uri: str | None = None) -> State:
    """Everything that is compared, by a readable name."""
    (run_dir,) = (path.parent for path in output_dir.glob("runs/*/*/status.json"))
    artifacts = sorted(path for path in (output_dir / "artifacts").glob("*-????????????") if path.is_dir())
    trackings = sorted((output_dir / "artifacts").glob("*.tracking"))
    weights = [*sorted((run_dir / "final").glob("*.safetensors")), *(p / "model/model.safetensors" for p in artifacts)]
    return {
        "status": json.loads((run_dir / "status.json").read_text())["status"],
        "metrics.jsonl": {p.name: read_metrics(p) for p in (run_dir, *trackings)},
        "eval.jsonl": {path.name: path.read_text() for path in run_dir.glob("eval*.jsonl")},
        "weights": [sha256(path) for path in weights],
        "artifacts": [path.name for path in artifacts],
        "damaged artifacts": [path.name for path in artifacts if find_damage(path)],
        "half-written files": unfinished_files(output_dir),
        **(mlflow_state(uri or f"sqlite:///{output_dir}/mlflow.db", output_dir)),
    }


def differences(one: State, other: State) -> list[str]:
    """The names of the entries that differ."""
    return [name for name in one if one[name] != other[name]]


def read_metrics(folder: Path) -> list[tuple[str, int, dict[str, float]]]:
    """Stage, step and metrics of each record, without measurements of the machine (`cost/`)."""
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(r["phase"], r["step"], without_costs(r["metrics"])) for r in records]


def without_costs(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics that do not depend on the load of the machine."""
    return {name: value for name, value in metrics.items() if not name.startswith("cost/")}


def unfinished_files(output_dir: Path) -> list[str]:
    """Temporary, damaged or rejected files and folders that are left."""
    patterns = ("*.part", "*.building", "unfinished", "*.damaged*", "*.unrecorded")
    return sorted(str(path.relative_to(output_dir)) for pattern in patterns for path in output_dir.rglob(pattern))


def mlflow_state(uri: str, output_dir: Path) -> State:
    """The MLflow runs with their status, every point of every metric, and the duplicate and missing points."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=100)
    logged: dict[str, dict[tuple[str, int], float]] = {}
    duplicates: list[tuple[str, int]] = []
    missing: list[tuple[str, int]] = []
    for run in runs:
        name = Path(run.data.tags["run_dir"]).relative_to(output_dir.resolve())
        history = [m for metric in run.data.metrics for m in client.get_metric_history(run.info.run_id, metric)]
        counts = Counter((m.key, m.step) for m in history)
        duplicates += [point for point, count in counts.items() if count > 1]
        records = map(json.loads, (output_dir / name / "metrics.jsonl").read_text().splitlines())
        missing += sorted({(key, r["step"]) for r in records for key in r["metrics"]} - set(counts))
        logged[str(name)] = {(m.key, m.step): m.value for m in history if not m.key.startswith("cost/")}
    return {
        "MLflow runs": sorted((run.data.tags["phase"], run.info.status) for run in runs),
        "MLflow points": logged,
        "MLflow points logged twice": duplicates,
        "MLflow points missing": missing,
    }
