"""Writes the report: one page without scripts, the same as text and as JSON, and the figures."""

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ..comparison import variance
from ..comparison.strata import group_by_metric
from ..comparison.verdict import SYMBOLS, format_subtraction
from ..findings import Findings
from ..judge import text
from ..plots import inline_svg
from ..plots.chart_index import ChartIndex, draw
from ..plots.svg import standalone
from ..plots.theme import method_color, stylesheet
from ..study.curves import FROM_SEEDS
from ..study.metrics import REASONS, counted, metric_named
from ..study.samples import visible
from ..validity.overoptimization import RELEVANT_SHARE
from ..validity.scope import format_pairing_note
from . import section_captions, tables, verdict_text
from .json_summary import as_json

TEMPLATES = Path(__file__).parent / "templates"
SECTIONS = (
    ("verdict", "Verdict"),
    ("warnings", "Warnings"),
    ("effect", "Difference"),
    ("seeds", "Seeds"),
    ("strata", "Strata"),
    ("learning", "Learning"),
    ("proxy", "Proxy and gold"),
    ("rewardmodel", "Reward model"),
    ("kl", "KL and length"),
    ("cost", "Cost"),
    ("judge", "Judge"),
    ("fairness", "Fairness"),
    ("samples", "Samples"),
    ("runs", "Runs"),
    ("read", "How to read"),
)
RUN_METRICS = ("final/avg_reward", "final/kl", "final/avg_response_length")


def write_report(findings: Findings, folder: Path | None = None) -> Path:
    """Write report.html, report.md, report.json and figures/*.svg; returns the path of the page.

    Without a folder they go to `<output_dir>/reports/<study>`.
    """
    home = folder or findings.study.output_dir / "reports" / findings.study.name
    (home / "figures").mkdir(parents=True, exist_ok=True)
    gallery = draw(findings)
    page = _words(findings, gallery)
    for old in (home / "figures").glob("*.svg"):
        old.unlink()  # a chart that no longer has data must not stay behind
    for chart in (chart for charts in gallery.values() for chart in charts):
        (home / "figures" / f"{chart.name}.svg").write_text(standalone(chart.svg))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    (home / "report.json").write_text(as_json(findings) + "\n")
    for name in ("report.html", "report.md"):
        (home / name).write_text(environment.get_template(name).render(page).lstrip() + "\n", encoding="utf-8")
    return home / "report.html"


def absent(findings: Findings) -> set[str]:
    """Sections that speak of something this study does not have."""
    there = {
        "strata": findings.strata,
        "judge": findings.judgement,
        "proxy": findings.over_optimization,
        "rewardmodel": findings.reward_models,
    }
    return {anchor for anchor, found in there.items() if not found}


def _words(findings: Findings, gallery: ChartIndex) -> dict[str, Any]:
    """All that the templates may speak of."""
    several = len(findings.methods) > 2
    others = [method for method in findings.methods if method is not findings.baseline]
    headline = [pair for pair in findings.against_baseline() if findings.state_of(pair) != "incomplete"]
    forest = [*headline, *findings.exploratory]
    reach = tables.forest_reach(forest)
    return {
        "f": findings,
        "say": verdict_text,
        "lede": section_captions,
        "cell": tables,
        "by": variance,
        "judge": text,
        "pairing_note": format_pairing_note(findings.pairing, findings.pairs),
        "gallery": gallery,
        "palette": Markup(stylesheet()),
        "css": Markup((TEMPLATES / "report.css").read_text()),
        "sections": [(anchor, label) for anchor, label in SECTIONS if anchor not in absent(findings)],
        "matters": RELEVANT_SHARE,
        "strata": group_by_metric(findings.strata),
        "symbol": SYMBOLS[findings.verdict.state],
        "pill": verdict_text.PILLS[findings.verdict.state],
        "several": several,
        "bands": all(len(method.scores) >= FROM_SEEDS for method in findings.methods),
        "challenger": "the other method" if len(others) != 1 else others[0].label,
        "other_method": others[0].name if others else "",
        "forest": forest,
        "reach": reach,
        "forest_row": lambda pair: tables.forest_row(findings, pair, reach, several),
        "axis_row": inline_svg.axis_row,
        "matrix_cell": lambda row, column: tables.matrix_cell(findings, row, column),
        "kind": lambda pair: tables.kind(findings, pair),
        "curve_table": tables.curve_table(findings),
        "start_note": tables.start_note(findings),
        "run_metrics": [
            findings.metric,
            *(metric_named(name) for name in RUN_METRICS if any(name in run.metrics for run in findings.study.runs)),
        ],
        "ratio_text": verdict_text.ratio_text,
        "reason": lambda reason: REASONS.get(reason or "", reason or ""),
        "subtraction": format_subtraction,
        "counted": counted,
        "method_color": method_color,
        "key": inline_svg.key,
        "visible": visible,
        "summary": Markup(as_json(findings, indent=None).replace("<", "\\u003c").replace("&", "\\u0026")),
    }
