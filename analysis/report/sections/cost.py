"""Cost: time, tokens, memory and price per run, and by stage."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ...comparison.costs import GIB, Cost
from ...comparison.stage_costs import GB, StageCost
from ...findings import Findings
from ...plots.charts import Chart, cost_chart
from ...study.methods import Method
from ...study.metrics import significant
from .. import tables, verdict_text
from ..section import Block, Cell, Figures, Heading, Section, Table, Text


def data(findings: Findings) -> dict[str, Any]:
    """Cost by stage; the cost of each run is in `runs`."""
    return {"phases": [_stage(cost) for cost in findings.stage_costs]}


def _stage(cost: StageCost) -> dict[str, Any]:
    numbers = asdict(cost)
    keys = {"phase": numbers.pop("stage"), "arm": numbers.pop("method")}
    return {**keys, **numbers, "label": cost.label, "verdict": cost.verdict}


def charts(findings: Findings) -> list[Chart]:
    """The headline metric against tokens, time and memory, where measured."""
    found = (cost_chart(findings, key) for key in ("tokens", "seconds", "peak_memory_bytes"))
    return [chart for chart in found if chart is not None]


def body(findings: Findings, charts: Sequence[Chart]) -> list[Block]:
    """Caption, charts, cost per run and cost by stage."""
    note = (
        "Small symbols: seeds. Large open symbol: mean. Up and to the left is better. Tokens are matched by design: "
        "if the first panel is not a narrow column, see the fairness checks."
    )
    stages = (
        "Tokens: trained on in supervised stages, generated in RL. Peak memory is that of the process, so a run that "
        "made a shared model includes its peak. Shared models are made once, whatever the number of runs."
    )
    if findings.declared.expected_memory_gb:
        stages += " Expected memory: analysis.expected_memory_gb (1 GB is 1,000,000,000 bytes)."
    return [
        Text(text=verdict_text.at_what_cost(findings), style="lede"),
        Figures(charts=charts, missing="n/a: costs were not measured for every finished run."),
        *([Text(text=note, style="cap")] if charts else []),
        Heading(text="Cost per run"),
        _runs(findings),
        Heading(text="Cost by stage"),
        _stages(findings),
        Text(text=stages, style="cap"),
    ]


def _runs(findings: Findings) -> Table:
    other = tables.only_other_method(findings)
    columns = ["mean over seeds", *(method.label for method in findings.methods)]
    if other:
        columns.append(f"{other.label} / {findings.baseline.label} (95% CI)")
    rows = [_cost_row(findings, cost, other) for cost in findings.costs]
    return Table(label="Cost per run", columns=columns, rows=rows)


def _cost_row(findings: Findings, cost: Cost, other: Method | None) -> list[str | Cell]:
    if cost.reason:
        why = Cell(text=f"n/a: {cost.reason}", style="mut")
        return [cost.label, *(why for _ in findings.methods), *([Cell()] if other else [])]
    cells: list[str | Cell] = [cost.label]
    for method in findings.methods:
        ratio = None if other else cost.ratios.get(method.name)
        detail = verdict_text.ratio_text(ratio) if ratio else ""
        cells.append(Cell(text=format_mean(cost, method), detail=detail))
    return [*cells, *([verdict_text.ratio_text(cost.ratios[other.name])] if other else [])]


def format_mean(cost: Cost, method: Method) -> str:
    """The mean cost of a run of a method."""
    values = cost.values[method.name]
    text = significant(sum(values) / len(values) / cost.divisor)
    return f"${text}" if cost.key == "price" else text


def _stages(findings: Findings) -> Table:
    expected = bool(findings.declared.expected_memory_gb)
    columns = ["stage", "time, s", "tokens", "peak memory, GiB", *(["expected memory"] if expected else [])]
    rows: list[list[str | Cell]] = [
        [_stage_name(findings, cost), *stage_cells(cost), *([expectation(cost)] if expected else [])]
        for cost in findings.stage_costs
    ]
    return Table(label="Cost by stage", columns=columns, rows=rows, left=(4,))


def _stage_name(findings: Findings, cost: StageCost) -> Cell:
    if cost.method is None:
        return Cell(text=cost.stage, detail=cost.note)
    return Cell(prefix=f"{cost.stage}, ", method=findings.method(cost.method), detail=cost.note)


def stage_cells(cost: StageCost) -> list[str]:
    """Seconds, tokens and peak memory of a stage."""
    memory = None if cost.peak_memory_bytes is None else cost.peak_memory_bytes / GIB
    return ["" if number is None else significant(number) for number in (cost.seconds, cost.tokens, memory)]


def expectation(cost: StageCost) -> str:
    """4.31 GB measured, 4 to 5 GB expected: as expected."""
    if cost.expected_gb is None or cost.peak_memory_bytes is None:
        return ""
    low, high = (f"{end:g}" for end in cost.expected_gb)
    span = low if low == high else f"{low} to {high}"
    return f"{cost.peak_memory_bytes / GB:.2f} GB measured, {span} GB expected: {cost.verdict}"


SECTION = Section(name="cost", label="Cost", title="What did it cost?", data=data, charts=charts, body=body)
