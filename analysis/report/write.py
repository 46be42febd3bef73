"""Writes the report: report.html without scripts, report.md, report.json and the figures."""

from collections.abc import Sequence
from pathlib import Path

from ..findings import Findings
from ..plots.svg import standalone
from .json_summary import as_json
from .render import draw_charts, render_html, render_markdown
from .section import Section
from .sections import SECTIONS


def write_report(findings: Findings, folder: Path | None = None, sections: Sequence[Section] = SECTIONS) -> Path:
    """Write report.html, report.md, report.json and figures/*.svg; returns the path of the page.

    Without a folder they go to `<output_dir>/reports/<study>`.
    """
    home = folder or findings.study.output_dir / "reports" / findings.study.name
    figures = home / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    charts = draw_charts(findings, sections)
    html = render_html(findings, sections, charts, as_json(findings, indent=None, sections=sections))
    for old in figures.glob("*.svg"):
        old.unlink()  # a chart without data in this report
    for chart in (chart for found in charts.values() for chart in found):
        (figures / f"{chart.name}.svg").write_text(standalone(chart.svg))
    (home / "report.json").write_text(as_json(findings, sections=sections) + "\n")
    (home / "report.html").write_text(html, encoding="utf-8")
    (home / "report.md").write_text(render_markdown(findings, sections, charts), encoding="utf-8")
    return home / "report.html"
