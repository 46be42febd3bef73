"""KL from the SFT model, answer length, and how the answers changed during RL."""

from collections.abc import Sequence
from typing import Any

from ...comparison.compare import Comparison
from ...findings import Findings
from ...plots.charts import Chart
from ...plots.kl import kl_charts
from ...study.answers import AnswerChange
from ...study.methods import Method
from ...study.metrics import method_label
from ..section import Block, Figures, Heading, Section, Table, Text


def data(findings: Findings) -> dict[str, Any]:
    """Traits of the answers before RL and at the end."""
    return {"answers": {row.metric.name: {"start": row.start, "end": row.end} for row in findings.changes}}


def caption(findings: Findings) -> str:
    """Differences in final KL and answer length against the baseline."""
    parts = []
    for name, label in (("final/kl", "KL from the SFT model"), ("final/avg_response_length", "Answer length")):
        found = [
            f"{method_label(pair.treatment)} {pair.metric.difference(pair.difference.value)}{_interval(pair)}"
            for pair in findings.exploratory
            if pair.metric.name == name
        ]
        if found:
            parts.append(f"{label} relative to {findings.baseline.label}: {', '.join(found)}.")
    return " ".join(parts) or "n/a: not every method measured KL or answer length at the end."


def _interval(pair: Comparison) -> str:
    low, high = pair.difference.low, pair.difference.high
    return "" if low is None else f" (95% CI {pair.metric.signed(low)} to {pair.metric.signed(high)})"


def body(findings: Findings, charts: Sequence[Chart]) -> list[Block]:
    """Caption, charts, note and the table of changes."""
    frontier = "Reward against KL, from the SFT model (left) to the end of training: higher at equal KL is better. "
    note = (
        f"{'' if findings.over_optimization else frontier}Longer answers without better quality are a sign of "
        "reward hacking. Final answers: symbol, median; thick line, middle 50%; thin line, middle 80%."
    )
    changes: list[Block] = [Heading(text="Answers before RL and at the end"), _changes(findings)]
    return [
        Text(text=caption(findings), style="lede"),
        Figures(charts=charts, missing="n/a: neither KL nor length was recorded by every method."),
        *([Text(text=note, style="cap")] if charts else []),
        *(changes if findings.changes else []),
    ]


def _changes(findings: Findings) -> Table:
    return Table(
        label="Answers before and after RL",
        columns=["mean over seeds", *(method.label for method in findings.methods)],
        rows=[
            [
                f"{change.metric.label}{', tokens' if change.metric.unit == 'tokens' else ''}",
                *(format_change(change, method) for method in findings.methods),
            ]
            for change in findings.changes
        ],
    )


def format_change(change: AnswerChange, method: Method) -> str:
    """46.0 → 106.2: the value before RL and at the end."""
    start, end = change.start[method.name], change.end[method.name]
    if end is None:
        return "n/a"
    text = change.metric.level(end)
    return text if start is None else f"{change.metric.level(start)} \N{RIGHTWARDS ARROW} {text}"


SECTION = Section(
    name="kl",
    label="KL and length",
    title="What did the reward cost in KL, and in length?",
    data=data,
    charts=kl_charts,
    body=body,
)
