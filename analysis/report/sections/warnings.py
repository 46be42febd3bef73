"""The computed warnings of a study, the most serious first."""

from collections.abc import Sequence
from typing import Any

from ...findings import Findings
from ...plots.charts import Chart
from ...study.metrics import counted
from ..section import Block, Section, Template, Text


def data(findings: Findings) -> dict[str, Any]:
    """The text of every warning."""
    return {"warnings": [warning.text for warning in findings.warnings]}


def body(findings: Findings, charts: Sequence[Chart]) -> list[Block]:
    """A list of level and text."""
    caption = f"{counted(len(findings.warnings), 'warning')}, computed from the runs; the most serious first."
    return [Text(text=caption, style="lede"), Template(name="warnings")]


SECTION = Section(name="warnings", label="Warnings", title="What limits the result?", data=data, body=body)
