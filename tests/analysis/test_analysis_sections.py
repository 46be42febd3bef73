"""A statistic or a plot is one section: registered once, it is in report.json, report.md, report.html and figures/."""

import json
from statistics import median

import pytest
from synthetic import two_by_three

from analysis.findings import find
from analysis.plots.charts import Chart
from analysis.plots.svg import caption_axes, panel, to_svg
from analysis.report.json_summary import summary
from analysis.report.section import Cell, Section, Table, Text
from analysis.report.sections import SECTIONS
from analysis.report.terminal import summary_lines
from analysis.report.write import write_report
from analysis.study.options import Options


def medians(findings):
    return {method.name: median(method.scores) for method in findings.methods}


MEDIANS = Section(
    name="medians",
    label="Medians",
    title="What does the median seed score?",
    data=lambda findings: {"medians": medians(findings)},
    body=lambda findings, charts: [
        Text(text="The median over seeds of `final/accuracy` & nothing else.", style="lede"),
        Table(
            label="Medians",
            columns=["method", "median"],
            rows=[[Cell(method=findings.method(name)), f"{value:.3f}"] for name, value in medians(findings).items()],
        ),
    ],
    terminal=lambda findings: [f"median: PPO {medians(findings)['ppo']:.3f}"],
)


def ordered_scores(findings):
    figure, axes = panel(344, 200)
    for method in findings.methods:
        axes.plot(sorted(method.scores))
    caption_axes(figure, axes, "ordered scores", "rank")
    return [Chart("ordered-scores", to_svg(figure, "ordered-scores", "Ordered scores of every method"))]


ORDERED = Section(name="ordered", label="Order", title="What is the order of the seeds?", charts=ordered_scores)


@pytest.fixture(scope="module")
def findings(studies):
    studies.write("sections", two_by_three())
    return find(Options(study="sections", output_dir=studies.output_dir))


def test_a_statistic_is_one_section(findings, tmp_path):
    sections = (*SECTIONS, MEDIANS)
    page = write_report(findings, tmp_path, sections)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["medians"] == {"ppo": 0.624, "grpo": 0.627}
    assert report.keys() - {"medians"} == summary(findings).keys()
    html, text = page.read_text(), (tmp_path / "report.md").read_text()
    section = html.split('<section id="medians">')[1].split("</section>")[0]
    assert "<h2>What does the median seed score?</h2>" in section
    assert "The median over seeds of <code>final/accuracy</code> &amp; nothing else." in section
    assert "<td>0.624</td>" in section
    assert '<a href="#medians">Medians</a>' in html
    assert "## What does the median seed score?\n" in text
    assert "| PPO | 0.624 |\n| GRPO | 0.627 |\n" in text
    assert " median: PPO 0.624" in summary_lines(findings, page, False, sections)


def test_a_plot_is_one_section(findings, tmp_path):
    page = write_report(findings, tmp_path, (*SECTIONS, ORDERED))
    section = page.read_text().split('<section id="ordered">')[1].split("</section>")[0]
    assert 'aria-label="Ordered scores of every method"' in section
    assert (tmp_path / "figures" / "ordered-scores.svg").read_text().startswith("<svg xmlns")
    assert "Figure: `figures/ordered-scores.svg`." in (tmp_path / "report.md").read_text()


def test_a_section_that_does_not_apply_is_left_out(findings, tmp_path):
    absent = Section(name="absent", label="Absent", title="Absent?", applies=lambda findings: False)
    page = write_report(findings, tmp_path, (*SECTIONS, absent))
    assert "Absent?" not in page.read_text() + (tmp_path / "report.md").read_text()


def test_two_sections_cannot_write_the_same_key(findings):
    with pytest.raises(ValueError, match="section medians: another section already writes medians"):
        summary(findings, (MEDIANS, MEDIANS))


def test_section_names_are_unique():
    assert len({section.name for section in SECTIONS}) == len(SECTIONS)
