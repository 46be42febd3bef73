"""Renders the sections of a report as HTML and as Markdown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
from markupsafe import Markup, escape

from ..findings import Findings
from ..plots import inline_svg
from ..plots.charts import Chart
from ..plots.theme import method_color, stylesheet
from ..study.metrics import counted
from ..study.samples import visible
from .section import Block, Figures, Heading, Section, Table, Template, Text
from .tables import fixed

TEMPLATES = Path(__file__).parent / "templates"
MACROS = {Text: "text", Heading: "heading", Table: "table", Figures: "figures"}


@dataclass(frozen=True)
class Rendered:
    """A section with its blocks in one of the formats."""

    section: Section
    blocks: list[str]


def draw_charts(findings: Findings, sections: Sequence[Section]) -> dict[str, list[Chart]]:
    """The charts of every section that applies to the study, by the name of the section."""
    return {section.name: section.charts(findings) for section in sections if section.applies(findings)}


def render_html(findings: Findings, sections: Sequence[Section], charts: dict[str, list[Chart]], summary: str) -> str:
    """The page; `summary` is the JSON that it embeds."""
    pages = _render(findings, sections, charts, "html")
    embedded = Markup(summary.replace("<", "\\u003c").replace("&", "\\u0026"))
    return _template(findings, "report.html").render(pages=pages, summary=embedded).lstrip() + "\n"


def render_markdown(findings: Findings, sections: Sequence[Section], charts: dict[str, list[Chart]]) -> str:
    """The report as Markdown; sections without text in this format are left out."""
    pages = [page for page in _render(findings, sections, charts, "md") if page.blocks]
    return _template(findings, "report.md").render(pages=pages).lstrip() + "\n"


def _render(
    findings: Findings, sections: Sequence[Section], charts: dict[str, list[Chart]], format_: str
) -> list[Rendered]:
    macros = _template(findings, f"macros.{format_}").make_module()
    pages = []
    for section in sections:
        if section.applies(findings):
            blocks = section.body(findings, charts[section.name])
            texts = [_block(findings, block, macros, format_) for block in blocks]
            pages.append(Rendered(section, [text for text in texts if text]))
    return pages


def _block(findings: Findings, block: Block, macros: ModuleType | Any, format_: str) -> str:
    if isinstance(block, Table) and block.only == "markdown" and format_ != "md":
        return ""
    if isinstance(block, Template):
        text = _own_layout(findings, block, macros, format_)
    else:
        text = getattr(macros, MACROS[type(block)])(block)
    return Markup(text.strip()) if format_ == "html" else str(text).strip()


def _own_layout(findings: Findings, block: Template, macros: ModuleType | Any, format_: str) -> str:
    name = f"sections/{block.name}.{format_}"
    if not (TEMPLATES / name).is_file():
        return ""
    return _template(findings, name).render(m=macros, **block.values)


def _template(findings: Findings, name: str) -> jinja2.Template:
    return _environment().get_template(
        name,
        globals={
            "f": findings,
            "counted": counted,
            "css": Markup((TEMPLATES / "report.css").read_text()),
            "fixed": fixed,
            "key": inline_svg.key,
            "method_color": method_color,
            "palette": Markup(stylesheet()),
            "visible": visible,
        },
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[[str], str]] = {"inline": inline_code, "cell": markdown_cell}
    environment.filters.update(filters)
    return environment


def inline_code(text: str) -> Markup:
    """Escaped HTML in which words between backticks are set as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(parts)
    )


def markdown_cell(text: str) -> str:
    """One line without the character that separates the cells of a Markdown table."""
    return " ".join(text.split()).replace("|", "/")
