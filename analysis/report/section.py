"""What a section of the report is made of: its data, its blocks of text and tables, its charts, its terminal lines."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..findings import Findings
from ..plots.charts import Chart
from ..study.methods import Method

Style = Literal["", "lede", "cap", "mut"]


@dataclass(frozen=True, kw_only=True)
class Text:
    """One paragraph; `style` is its CSS class: lede (caption under the heading), cap (note), mut (n/a) or none.

    Words between backticks are set as code.
    """

    text: str
    style: Style = ""


@dataclass(frozen=True, kw_only=True)
class Heading:
    """A heading below that of the section."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a table: a text, a smaller second line, the name and symbol of a method, or a check mark."""

    text: str = ""
    detail: str = ""
    method: Method | None = None
    prefix: str = ""
    """Text in front of the name of the method."""
    passed: bool | None = None
    """Draws a check mark or a cross in front of the text."""
    style: str = ""
    """CSS classes of the cell."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of strings or cells, the first of each row being its header."""

    label: str
    """For readers who cannot see the table."""
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    caption: str = ""
    left: Sequence[int] = ()
    """Columns of text, aligned left."""
    folded: str = ""
    """The summary line under which the table is folded in HTML; an empty string shows it."""
    wrap: bool = False
    """Breaks long row headers into lines."""
    style: str = ""
    """CSS classes of the frame around the table."""
    only: Literal["", "markdown"] = ""
    """Leaves the table to report.md where report.html has a drawing of the same numbers."""

    @property
    def cells(self) -> list[list[Cell]]:
        """All rows as cells."""
        return [[cell if isinstance(cell, Cell) else Cell(text=cell) for cell in row] for row in self.rows]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Charts side by side, or one below the other where they are wide; `missing` says why there are none."""

    charts: Sequence[Chart]
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Template:
    """A layout of its own: the files templates/sections/<name>.html and <name>.md, as far as they exist."""

    name: str
    values: Mapping[str, Any] = field(default_factory=dict)


Block = Text | Heading | Table | Figures | Template


def show_charts(findings: Findings, charts: Sequence[Chart]) -> list[Block]:
    """The body of a section of charts only."""
    return [Figures(charts=charts)]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section: every function receives the findings of a study, and `body` also the charts of the section."""

    name: str
    """The anchor in the page."""
    label: str
    """The entry in the navigation."""
    title: str
    """The heading; without one the blocks stand alone."""
    body: Callable[[Findings, Sequence[Chart]], Sequence[Block]] = show_charts
    """The blocks of report.html and report.md."""
    data: Callable[[Findings], dict[str, Any]] = lambda findings: {}
    """Top-level keys of report.json with their values; NaN and Inf must be None."""
    charts: Callable[[Findings], list[Chart]] = lambda findings: []
    """Figures of the page, also written to figures/<name>.svg."""
    terminal: Callable[[Findings], list[str]] = lambda findings: []
    """Lines of the terminal summary, at most 80 ASCII columns."""
    applies: Callable[[Findings], bool] = lambda findings: True
    """Whether the study has what the section is about; its data are written in any case."""
