"""The final score of every seed, with the confidence interval of each method's mean."""

from collections.abc import Sequence
from math import isfinite

from ...findings import Findings
from ...plots.charts import Chart
from ...plots.seeds import seeds_chart
from ...study.metrics import listed, method_label
from ..section import Block, Figures, Section, Text


def caption(findings: Findings) -> str:
    """Which methods are separated seed by seed."""
    pairs = [
        pair for pair in findings.pairs if all(pair.scores) and all(isfinite(s) for row in pair.scores for s in row)
    ]
    if not pairs:
        return "All seeds of the study, including those without a result."
    separated = [pair for pair in pairs if pair.seed_wins[0] in (0, pair.seed_wins[1])]
    if not separated:
        return "The methods overlap: no method has all its seeds above or below those of another."
    behind: dict[str, list[str]] = {}
    for pair in separated:
        winner, loser = (pair.treatment, pair.baseline) if pair.seed_wins[0] else (pair.baseline, pair.treatment)
        behind.setdefault(method_label(winner), []).append(method_label(loser))
    return " ".join(
        f"Every {winner} seed is ahead of every {listed(losers)} seed." for winner, losers in behind.items()
    )


def start_note(findings: Findings) -> str:
    """The level of the SFT model that training started from."""
    starts = {findings.metric.level(method.start) for method in findings.methods if method.start is not None}
    if not starts:
        return "The SFT model was not evaluated."
    return f"SFT start: {', '.join(sorted(starts))}."


def charts(findings: Findings) -> list[Chart]:
    """One chart of all methods; none without a score."""
    chart = seeds_chart(findings)
    return [] if chart is None else [chart]


def body(findings: Findings, charts: Sequence[Chart]) -> list[Block]:
    """Caption, chart and how to read it."""
    note = (
        "Each symbol is one trained model, labelled with its seed. Below the symbols: the mean (tick) and its 95% "
        f"t-interval (line; an arrowhead marks an interval cut by the axis). {start_note(findings)} A cross is a run "
        "without a result, at its last validation score; the mean does not include it."
    )
    return [
        Text(text=caption(findings), style="lede"),
        Figures(charts=charts, missing=f"n/a: no run has a final {findings.metric.label}."),
        *([Text(text=note, style="cap")] if charts else []),
    ]


SECTION = Section(name="seeds", label="Seeds", title="What did each seed score?", charts=charts, body=body)
