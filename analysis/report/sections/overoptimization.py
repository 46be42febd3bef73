"""Reward over-optimization: proxy and gold reward against KL, and the fall of gold from its peak."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ...findings import Findings
from ...plots.charts import Chart
from ...plots.overoptimization import proxy_charts
from ...validity.overoptimization import RELEVANT_SHARE, OverOptimization, SeedFall
from ...validity.reward_hacking import format_overoptimization
from .. import tables
from ..json_values import estimate_data
from ..section import Block, Cell, Figures, Section, Table, Text

COLUMNS = (
    "run", "measured from step", "gold: start", "at that step", "end", "fall", "proxy: at that step", "end", "rise"
)  # fmt: skip


def data(findings: Findings) -> dict[str, Any]:
    """One finding for each method with gold and proxy curves."""
    return {"over_optimization": [_finding(finding) for finding in findings.over_optimization]}


def _finding(finding: OverOptimization) -> dict[str, Any]:
    return {
        "method": finding.method,
        "state": finding.state,
        "sentence": format_overoptimization(finding),
        **{name: asdict(point) for name, point in finding.points.items()},
        "fall": estimate_data(finding.fall),
        "fall_at_most_the_gain": estimate_data(finding.capped_fall),
        "rise_of_proxy": estimate_data(finding.rise),
        "smallest_fall_that_matters": finding.relevant_fall,
        "seeds": [asdict(seed) for seed in finding.seeds],
    }


def body(findings: Findings, charts: Sequence[Chart]) -> list[Block]:
    """One sentence for each method, charts, the definition, and the values of every seed."""
    rows: list[list[str | Cell]] = [
        [Cell(method=findings.method(found.method), text=str(seed.seed)), str(seed.step), *seed_cells(seed)]
        for found in findings.over_optimization
        for seed in found.seeds
    ]
    label = "Gold and proxy reward of every seed"
    return [
        *(Text(text=format_overoptimization(found), style="lede") for found in findings.over_optimization),
        Figures(charts=charts, missing="n/a: KL was not measured along the way."),
        Text(text=_note(findings, charts), style="cap"),
        Table(label=label, columns=COLUMNS, rows=rows, folded="Values of every seed"),
    ]


def _note(findings: Findings, charts: Sequence[Chart]) -> str:
    axes = (
        "The x-axis starts at the SFT model and is spaced by the square root of KL. Thin: seeds. Thick: mean over "
        "seeds. Gray: other methods. Dotted: peak of the mean gold reward. "
    )
    margin = ""
    if findings.declared.margin and findings.metric.name == "final/gold":
        margin = " (in this study: more than the declared margin)"
    return (
        "Proxy: the reward used in training. Gold: the true quality, not seen in training. "
        f"{axes if charts else ''}The maximum of a noisy curve is biased upwards, so the fall of each seed is measured "
        "from the step at which the other seeds peak. A method is over-optimized when the 95% interval of the mean "
        "fall lies above zero (a clear gain caps the fall of each seed), when the fall is at least "
        f"{100 * RELEVANT_SHARE:.0f}% of the gain{margin}, and when the proxy rose on most seeds."
    )


def seed_cells(seed: SeedFall) -> list[str]:
    """Gold: start, peak of the other seeds, end, fall; proxy: at that peak, end, rise."""
    return [tables.fixed(number) for number in (*seed.gold, seed.fall, *seed.proxy, seed.rise)]


SECTION = Section(
    name="proxy",
    label="Proxy and gold",
    title="Did true quality follow the reward?",
    data=data,
    charts=proxy_charts,
    body=body,
    applies=lambda findings: bool(findings.over_optimization),
)
