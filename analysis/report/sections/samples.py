"""Answers of all methods to the same held-out prompts, side by side; in the HTML page only."""

from collections.abc import Sequence

from ...findings import Findings
from ...judge.text import format_sample
from ...plots.charts import Chart
from ..section import Block, Section, Template


def caption(findings: Findings) -> str:
    """How the prompts were selected."""
    samples = findings.samples
    if samples.reason:
        return f"n/a: {samples.reason}."
    return (
        f"Held-out prompts selected by a fixed rule, at seed {samples.seed} of every method. Answers are plain text: "
        "nothing in them is executed or rendered."
    )


def body(findings: Findings, charts: Sequence[Chart]) -> list[Block]:
    """Caption and answers; report.md leaves both out, since text of a model could act as Markdown."""
    samples = findings.samples
    judged = {
        sample.prompt_id: format_sample(findings.judgement, samples.seed, sample.prompt_id) for sample in samples.picked
    }
    return [Template(name="samples", values={"caption": caption(findings), "judged": judged})]


SECTION = Section(name="samples", label="Samples", title="What do the answers look like?", body=body)
