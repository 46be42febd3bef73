"""The judgement of an LLM judge: wins, ties, losses and score of each two methods."""

from collections.abc import Sequence
from typing import Any

from ...findings import Findings
from ...judge import text
from ...judge.json_data import judgement_to_json
from ...judge.judgement import Judgement
from ...plots.charts import Chart
from ...plots.judge import judge_charts
from ...study.metrics import method_label
from ..section import Block, Figures, Heading, Section, Table, Text


def data(findings: Findings) -> dict[str, Any]:
    """One row for each two methods; null without a judge."""
    return {"judge": judgement_to_json(findings.judgement)}


def terminal(findings: Findings) -> list[str]:
    """One line for each two methods."""
    return text.summary_lines(findings.judgement) if findings.judgement else []


def body(findings: Findings, charts: Sequence[Chart]) -> list[Block]:
    """Caption, results, charts, and the diagnostics of the judge."""
    judgement = findings.judgement
    if judgement is None:
        return []
    blocks: list[Block] = [
        Text(text=text.format_summary(judgement), style="lede"),
        *(Text(text=text.format_result(match)) for match in judgement.matches),
        *([Figures(charts=charts)] if charts else []),
    ]
    if not judgement.matches:
        return blocks
    return [
        *blocks,
        Heading(text="Is the judge reliable here?"),
        _table(judgement, wrap=len(findings.methods) > 2),
        Text(text=_note(judgement), style="cap"),
    ]


def _table(judgement: Judgement, wrap: bool) -> Table:
    names = [
        f"{method_label(match.tally.treatment)} against {method_label(match.tally.baseline)}"
        for match in judgement.matches
    ]
    rows = [[label, *texts] for label, texts in text.table_rows(judgement)]
    return Table(label="Diagnostics of the judge", columns=[judgement.judge.model, *names], rows=rows, wrap=wrap)


def _note(judgement: Judgement) -> str:
    parts = [
        "A pair is won only by the same winner in both orders. A winner that changes with the order, or is named in "
        "one order only, counts as a tie; a pair without a verdict is never a tie.",
        "95% intervals are about new prompts with these trained models: clustered by prompt over seeds, or Wilson's "
        "on the number of prompts below 30 prompts. They are not corrected for several comparisons.",
        "Where the judge itself answers tie, strict counting pulls the score towards one half; the mean of both orders "
        "does not.",
    ]
    date = judgement.usage[0].shutdown_date
    if date:
        parts.append(f"The endpoint retires the judge's model on {date}; its verdicts stay in the cache.")
    return " ".join(parts)


SECTION = Section(
    name="judge",
    label="Judge",
    title="What does the judge say?",
    data=data,
    charts=judge_charts,
    body=body,
    terminal=terminal,
    applies=lambda findings: findings.judgement is not None,
)
