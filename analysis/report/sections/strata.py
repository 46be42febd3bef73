"""Results by stratum of the held-out prompts: the mean of each method and its difference to the baseline."""

from collections.abc import Sequence
from typing import Any

from ...comparison.strata import Stratum, group_by_metric
from ...findings import Findings
from ...plots.charts import Chart
from ...study.metrics import capitalized, counted, listed, method_label
from .. import tables
from ..json_values import estimate_data
from ..section import Block, Cell, Section, Table, Text


def data(findings: Findings) -> dict[str, Any]:
    """Means and differences of every stratum and metric."""
    return {"strata": [_stratum(row) for row in findings.strata]}


def _stratum(row: Stratum) -> dict[str, Any]:
    return {
        "stratum": row.name,
        "metric": row.metric.name,
        "means": row.means,
        "differences": {method: estimate_data(estimate) for method, estimate in row.differences.items()},
    }


def caption(findings: Findings) -> str:
    """The strata, and where a difference excludes zero."""
    names = list(dict.fromkeys(row.name for row in findings.strata))
    clear = [
        f"{row.metric.label} on {row.name} ({method_label(method)} {row.metric.difference(estimate.value)})"
        for row in findings.strata
        for method, estimate in row.differences.items()
        if estimate.low is not None and estimate.high is not None and not estimate.low <= 0 <= estimate.high
    ]
    found = (
        f"95% interval excludes zero (uncorrected): {listed(clear)}."
        if clear
        else "No 95% interval of a difference excludes zero."
    )
    return f"{counted(len(names), 'stratum').replace('stratums', 'strata')}: {listed(names)}. {found}"


def body(findings: Findings, charts: Sequence[Chart]) -> list[Block]:
    """One table for each metric, the first shown and the others folded."""
    groups = group_by_metric(findings.strata)
    note = "Means over seeds on the held-out prompts of one stratum. Exploratory: intervals are not corrected."
    return [
        Text(text=caption(findings), style="lede"),
        *(_table(findings, label, rows, place > 0) for place, (label, rows) in enumerate(groups)),
        Text(text=note, style="cap"),
    ]


def _table(findings: Findings, label: str, rows: Sequence[Stratum], folded: bool) -> Table:
    title, other = capitalized(label), tables.only_other_method(findings)
    columns = ["stratum", *(method.label for method in findings.methods)]
    if other:
        columns.append(tables.minus_column(findings, other))
    return Table(
        label=f"{label} by stratum",
        columns=columns,
        rows=[_row(findings, row, other.name if other else None) for row in rows],
        caption=title,
        folded=f"{title} by stratum" if folded else "",
    )


def _row(findings: Findings, row: Stratum, other: str | None) -> list[str | Cell]:
    cells: list[str | Cell] = [row.name]
    for method in findings.methods:
        estimate = None if other else row.differences.get(method.name)
        detail = tables.difference(row.metric, estimate) if estimate else ""
        cells.append(Cell(text=row.metric.level(row.means[method.name]), detail=detail))
    return [*cells, *([tables.difference(row.metric, row.differences[other])] if other else [])]


SECTION = Section(
    name="strata",
    label="Strata",
    title="Is it the same for every kind of prompt?",
    data=data,
    body=body,
    applies=lambda findings: bool(findings.strata),
)
