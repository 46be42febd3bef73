"""The chart of a judgement: wins, ties and losses as one bar, and the score with its interval against one half."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from ..findings import Findings
from ..judge.tally import Tally
from ..judge.text import format_percent, format_share
from ..study.methods import Method
from .charts import BG, INK, MUTED, Chart, color, marker
from .svg import NARROW, caption_axes, panel, ticks, to_svg
from .theme import LIGHT

EVEN = 50.0
NARROWEST = 0.12  # of the bar: a shorter part has no room for its percentage


def judge_charts(findings: Findings) -> list[Chart]:
    """One chart for each two methods that have a score."""
    matches = findings.judgement.matches if findings.judgement else ()
    return [
        _chart(
            f"judge-{place}", match.tally, findings.method(match.tally.treatment), findings.method(match.tally.baseline)
        )
        for place, match in enumerate(matches)
        if match.tally.score.low is not None
    ]


def _chart(name: str, found: Tally, treatment: Method, baseline: Method) -> Chart:
    figure, axes = panel(NARROW, 148, left=8, right=8, top=30, bottom=38)
    value, low, high = (100 * (n or 0.0) for n in (found.score.value, found.score.low, found.score.high))
    reach = 1.25 * max(EVEN - low, high - EVEN, 4.0)
    axes.set_xlim(EVEN - reach, EVEN + reach)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    _bar(axes, found, treatment, baseline)
    axes.plot([EVEN, EVEN], [0, 0.4], color=INK, linewidth=1.2)
    axes.plot([low, high], [0.2, 0.2], color=INK, linewidth=2.2, solid_capstyle="butt")
    axes.plot([value], [0.2], marker=marker(treatment), markersize=9, color=color(treatment), markeredgecolor=BG)
    axes.text(value, 0.33, format_percent(found.score.value), ha="center", fontsize=11, fontweight="bold", color=INK)
    ticks(axes, "x", 5, lambda tick: f"{tick:g}%")
    caption_axes(figure, axes, "", f"score of {treatment.label}, 95% interval")
    spoken = (
        f"{treatment.label} wins {found.win}, ties {found.tie}, {baseline.label} wins {found.loss}; score of "
        f"{treatment.label} {format_share(found.score)}"
    )
    return Chart(name, to_svg(figure, name, spoken))


def _bar(axes: Axes, found: Tally, treatment: Method, baseline: Method) -> None:
    """The baseline's wins on the left, ties between, the treatment's on the right: right favors the treatment."""
    parts = (
        (found.loss, f"{baseline.label} wins {found.loss:,}", color(baseline), "left"),
        (found.tie, f"ties {found.tie:,}", LIGHT["zone"], "center"),
        (found.win, f"{treatment.label} wins {found.win:,}", color(treatment), "right"),
    )
    start = 0.0
    for (count, words, fill, side), at in zip(parts, (0.0, 0.5, 1.0), strict=True):
        width = count / found.judged
        axes.add_patch(Rectangle((start, 0.58), width, 0.3, transform=axes.transAxes, color=fill, linewidth=0))
        if width > NARROWEST:
            ink = MUTED if side == "center" else BG
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 11, "fontweight": "bold", "color": ink}
            axes.text(start + width / 2, 0.73, f"{100 * width:.0f}%", transform=axes.transAxes, **style)
        axes.text(at, 0.96, words, transform=axes.transAxes, ha=side, fontsize=11, color=LIGHT["ink2"])
        start += width
