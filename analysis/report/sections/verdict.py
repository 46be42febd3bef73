"""The verdict of a study: state, levels, and the answers to which is better, how sure and at what cost."""

from collections.abc import Sequence
from typing import Any

from ...comparison.verdict import SYMBOLS
from ...findings import Findings
from ...plots.charts import Chart
from ...plots.effect import difference_chart
from ...study.metrics import explain
from .. import tables, verdict_text
from ..section import Block, Section, Template


def data(findings: Findings) -> dict[str, Any]:
    """The study and its verdict."""
    return {
        "study": findings.study.name,
        "generated": findings.generated,
        "methods": findings.study.methods,
        "seeds": findings.study.seeds,
        "baseline": findings.declared.baseline,
        "headline_metric": findings.declared.metric,
        "margin": findings.declared.margin,
        "verdict": {"state": findings.verdict.state, "sentence": findings.verdict.sentence},
    }


def charts(findings: Findings) -> list[Chart]:
    """The difference that decides; none where the verdict is withheld."""
    chart = difference_chart(findings)
    return [] if chart is None else [chart]


def body(findings: Findings, charts: Sequence[Chart]) -> list[Block]:
    """The card at the top of the page."""
    state = findings.verdict.state
    values = {
        "charts": charts,
        "withheld": state in ("incomplete", "not_comparable"),
        "symbol": SYMBOLS[state],
        "pill": verdict_text.PILLS[state],
        "levels": verdict_text.format_levels(findings),
        "answers": verdict_text.answers(findings),
        "note": _note(findings),
        "no_interval": f"No interval to draw: {explain(findings.pairs[0].difference.reason)}."
        if findings.pairs
        else "",
        "ends": tables.ends,
    }
    return [Template(name="verdict", values=values)]


def _note(findings: Findings) -> str:
    """How to read the chart."""
    if not findings.pairs:
        return ""
    metric, margin, count = findings.metric, findings.declared.margin, len(findings.pairs)
    test = "paired" if findings.pairing.by_seed else "Welch"
    parts = [
        "Symbol: estimate.",
        f"Thick line: {findings.pairs[0].inner_percent:g}% interval"
        + (', which must lie within the band for "equivalent".' if margin else "."),
        f"Thin line: simultaneous 95% interval over all {count} comparisons."
        if count > 1
        else f"Thin line: 95% confidence interval ({test} t).",
        f"Band: equivalence margin, {metric.size(margin)}." if margin else "",
        "Dashed line: smallest difference detected with 80% power at this number of seeds, if the observed spread is "
        "the true one.",
        "Lower is better, so the axis is reversed." if metric.better == "less" else "",
    ]
    return " ".join(part for part in parts if part)


SECTION = Section(name="verdict", label="Verdict", title="", data=data, charts=charts, body=body)
