"""Learning curves: the headline metric on validation prompts, the training reward and KL."""

from collections.abc import Sequence

from ...findings import Findings
from ...plots.charts import Chart
from ...plots.learning import learning_charts
from ...study.curves import FROM_SEEDS, learning_lines, x_axis
from ...study.metrics import metric_named, significant
from .. import tables
from ..section import Block, Figures, Section, Table, Text

MISSING = "n/a: no learning curves were recorded by every method."
ROWS = 6
"""Intervals between the rows of the table."""


def caption(findings: Findings, charts: Sequence[Chart]) -> str:
    """The gain of each method over its start."""
    if not charts:
        return MISSING
    metric = findings.metric
    ends = {method.label: method.level.value for method in findings.methods if method.level.value is not None}
    gains = [
        f"{method.label} {metric.difference(method.level.value - method.start)}"
        for method in findings.methods
        if method.level.value is not None and method.start is not None
    ]
    if gains:
        return f"Change from the SFT start to the end of training (not tested): {', '.join(gains)}."
    return f"At the end of training: {', '.join(f'{name} {metric.level(value)}' for name, value in ends.items())}."


def note(findings: Findings) -> str:
    """How to read the panels."""
    bands = all(len(method.scores) >= FROM_SEEDS for method in findings.methods)
    if len(findings.methods) > 2:
        band = ", the 95% t-interval of the mean (band; shown for 5 seeds or more)" if bands else ""
        text = (
            f"A panel of one method shows its seeds (thin), its mean (thick){band} and the means of the other methods "
            "(gray). The other panels show means only."
        )
    elif bands:
        text = "Thin: seeds. Thick: mean over seeds. Band: pointwise 95% t-interval of the mean."
    else:
        text = "Thin: seeds. Thick: mean over seeds. A band is drawn for 5 seeds or more."
    ends = " A mean ends at the last step of the shortest run of its method." if findings.troubled else ""
    return f"{text}{ends} Curves are not smoothed."


def body(findings: Findings, charts: Sequence[Chart]) -> list[Block]:
    """Caption, charts, note, and the numbers of the first chart."""
    blocks: list[Block] = [
        Text(text=caption(findings, charts), style="lede"),
        Figures(charts=charts, missing=MISSING),
    ]
    return [*blocks, Text(text=note(findings), style="cap"), _table(findings)] if charts else blocks


def _table(findings: Findings) -> Table:
    """Seven rows of the first learning figure."""
    metric = metric_named(findings.declared.metric.replace("final/", "eval/", 1))
    lines = learning_lines(findings.study, findings.study.methods, metric.name, metric.scale)
    divisor, unit = x_axis(findings.study)
    points = min((len(line.mean_x) for line in lines.values()), default=0)
    places = sorted({round(i * (points - 1) / ROWS) for i in range(ROWS + 1)}) if points else []
    rows = [
        [
            significant(lines[findings.methods[0].name].mean_x[i] / divisor),
            *(tables.fixed(lines[method.name].mean_y[i], metric.digits) for method in findings.methods),
        ]
        for i in places
    ]
    return Table(
        label="Learning curve values",
        columns=[unit, *(method.label for method in findings.methods)],
        rows=rows,
        caption=f"{metric.axis()}, mean over seeds at equal steps",
        folded="Values of the first figure",
    )


SECTION = Section(name="learning", label="Learning", title="How did they learn?", charts=learning_charts, body=body)
