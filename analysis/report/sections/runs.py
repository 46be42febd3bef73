"""Every run of the study: status, final metrics, cost and remarks."""

from collections.abc import Sequence
from typing import Any

from alignbench.core import metric_names

from ...comparison.costs import GIB
from ...findings import Findings
from ...plots.charts import Chart
from ...study.load import Run, Status
from ...study.metrics import Metric, counted, metric_named, significant
from ..json_values import finite
from ..section import Block, Cell, Section, Table, Text

LEDGER = ("prompts", "completions", "tokens", "optimizer_steps", "seconds", "peak_memory_bytes")
METRICS = ("final/avg_reward", "final/kl", "final/avg_response_length")
STATUS_LABELS: dict[Status, str] = {
    "finished": "finished",
    "failed": "failed",
    "interrupted": "interrupted",
    "running": "still running",
    "missing": "missing",
}


def data(findings: Findings) -> dict[str, Any]:
    """Every run, also those without a result."""
    return {"runs": [_run(run) for run in findings.study.runs]}


def _run(run: Run) -> dict[str, Any]:
    return {
        "method": run.method,
        "seed": run.seed,
        "status": run.status,
        "reason": run.reason,
        "counted": run.counted,
        "path": run.folder,
        "metrics": {name: finite(value) for name, value in sorted(run.metrics.items()) if name.startswith("final/")},
        "ledger": {name: run.ledger.get(name) for name in LEDGER},
    }


def caption(findings: Findings) -> str:
    """How many runs have which status."""
    runs = findings.study.runs
    statuses = [
        f"{n} {label}" for status, label in STATUS_LABELS.items() if (n := sum(run.status == status for run in runs))
    ]
    extra = sum(not run.counted for run in runs)
    known = "planned" if findings.study.planned else "found"
    excluded = f"; {extra} listed and not counted" if extra else ""
    return f"{len(runs) - extra} {known}: {', '.join(statuses)}{excluded}."


def body(findings: Findings, charts: Sequence[Chart]) -> list[Block]:
    """One row for each run."""
    runs = findings.study.runs
    known = [name for name in METRICS if any(name in run.metrics for run in runs)]
    metrics = [findings.metric, *map(metric_named, known)]
    columns = ["run", "status", *(metric.short() for metric in metrics), "tokens, M", "time, s", "peak, GiB", "remark"]
    rows = [_row(findings, run, metrics) for run in runs]
    folder = runs[0].folder.rsplit("/", 1)[0]
    note = f"Folders: `{folder}/` in the output folder; each has the config, manifest, metrics and answers of a run."
    return [
        Text(text=caption(findings), style="lede"),
        Table(label="Runs", columns=columns, rows=rows, left=(1, len(columns) - 1), style="runs"),
        Text(text=note, style="cap"),
    ]


def _row(findings: Findings, run: Run, metrics: Sequence[Metric]) -> list[str | Cell]:
    return [
        Cell(method=findings.method(run.method), text=str(run.seed)),
        Cell(text=run.status, passed=run.status == "finished"),
        *(metric.number(run.metrics.get(metric.name)) for metric in metrics),
        *run_costs(run),
        Cell(text=remark(run), style="mut wrap"),
    ]


def run_costs(run: Run) -> list[str]:
    """Tokens in millions, seconds and peak memory in GiB."""
    tokens, seconds, memory = (
        run.ledger.get(key, run.metrics.get(name))
        for key, name in (
            ("tokens", metric_names.TOKENS),
            ("seconds", metric_names.SECONDS),
            ("peak_memory_bytes", metric_names.PEAK_MEMORY),
        )
    )
    return [
        significant(None if tokens is None else tokens / 1e6),
        significant(seconds),
        significant(None if memory is None else memory / GIB),
    ]


def selected_weights(run: Run) -> str:
    """Which weights were evaluated, where they are not the last ones."""
    step = run.manifest.get("selected_step")
    last = max((curve.steps[-1] for name, curve in run.curves.items() if name.startswith("eval/")), default=None)
    return f"weights of step {step}, of {last}" if step is not None and last is not None and step < last else ""


def remark(run: Run) -> str:
    """Failure reason, exclusion, resumption, selected weights, uncommitted changes, reproducibility."""
    parts = [
        run.reason or "",
        "second run of this method and seed, not counted" if not run.counted else "",
        f"resumed {counted(run.resumed, 'time')}" if run.resumed else "",
        selected_weights(run),
        "uncommitted changes" if (run.manifest.get("git") or {}).get("dirty") else "",
        f"{run.determinism} reproducible" if run.determinism else "",
    ]
    return "; ".join(part for part in parts if part)


SECTION = Section(name="runs", label="Runs", title="Which runs are in the study?", data=data, body=body)
