"""Chart of the headline difference: interval, zero, margin and smallest detectable difference."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from ..comparison.compare import Comparison
from ..findings import Findings
from ..statistics import Estimate
from ..study.methods import Method
from ..study.metrics import MINUS, Metric, method_label
from .charts import BG, INK, MUTED, Chart, color, marker
from .svg import NARROW, WIDE, above, caption_axes, panel, ticks, to_svg, write
from .theme import LIGHT


def difference_chart(findings: Findings) -> Chart | None:
    """The interval of each method against the baseline, with zero, margin and smallest detectable difference."""
    pairs = [pair for pair in findings.against_baseline() if pair.difference.low is not None]
    if not pairs:
        return None
    wide, narrow = (_draw_difference(findings, pairs, width) for width in (WIDE, NARROW))
    return Chart("difference", wide, narrow)


def _draw_difference(findings: Findings, pairs: Sequence[Comparison], width: float) -> str:
    metric, rows = findings.metric, len(pairs)
    several = rows > 1
    beside = several and width > NARROW
    figure, axes = panel(
        width, 82 + rows * (40 if beside or not several else 48), left=232 if beside else 12, right=12, top=38
    )
    reach = _reach(pairs, metric)
    turned = metric.better == "less"
    axes.set_xlim((reach, -reach) if turned else (-reach, reach))
    axes.set_ylim(-0.6, rows - 0.25)
    axes.set_yticks([])
    if findings.declared.margin:
        zone = findings.declared.margin * metric.scale
        axes.axvspan(-zone, zone, color=LIGHT["zone"], linewidth=0)
    axes.axvline(0, color=INK, linewidth=1.2)
    _detectable(axes, pairs, metric, reach, both=beside or not several)
    for place, pair in enumerate(reversed(pairs)):
        _interval(axes, place, pair, metric, reach)
        if not several:
            _write_ends(axes, place, pair, reach)
        else:
            _name_row(axes, place, pair, findings.method(pair.treatment), -224 / (width - 244) if beside else None)
    _directions(axes, findings, "" if several else method_label(pairs[0].treatment))
    ticks(axes, "x", 7 if width > NARROW else 5, _signed_tick)
    unit = f" ({metric.unit})" if metric.unit else ""
    caption_axes(figure, axes, "", f"difference in {metric.label}{unit}")
    label = "; ".join(
        f"{method_label(pair.treatment)} minus {method_label(pair.baseline)} {_spoken(pair.difference, metric)}"
        for pair in pairs
    )
    return to_svg(figure, f"difference-{width:.0f}", label)


def _directions(axes: Axes, findings: Findings, treatment: str) -> None:
    """Label which side of zero favors which method."""
    better = f"{treatment} better" if treatment else f"better than {findings.baseline.label}"
    above(axes, 0, 20, f"\N{LEFTWARDS ARROW} {findings.baseline.label} better", -8, ha="right", color=MUTED)
    above(axes, 0, 20, f"{better} \N{RIGHTWARDS ARROW}", 8, ha="left", color=MUTED)


def _signed_tick(value: float) -> str:
    return f"{value:+.6g}".replace("-", MINUS) if value else "0"


def _spoken(estimate: Estimate, metric: Metric) -> str:
    interval = f"{metric.signed(estimate.low)} to {metric.signed(estimate.high)}"
    return f"{metric.difference(estimate.value)}, 95% interval {interval}"


def _reach(pairs: Sequence[Comparison], metric: Metric) -> float:
    ends = [max(abs(pair.difference.low or 0), abs(pair.difference.high or 0)) for pair in pairs]
    detectable = [
        pair.detectable for pair in pairs if pair.detectable is not None and pair.detectable < 1.6 * max(ends)
    ]
    widest = min(max(ends), 4 * float(np.median(ends)))
    return 1.12 * metric.scale * max([widest, *detectable, *(pair.margin or 0 for pair in pairs)])


def _name_row(axes: Axes, y: float, pair: Comparison, method: Method, beside: float | None) -> None:
    """The method of a row with its numbers: beside the chart, or above the interval where the page is narrow."""
    metric, estimate = pair.metric, pair.difference
    interval = f"{metric.signed(estimate.low)} to {metric.signed(estimate.high)}"
    text = f"{method.label} {metric.signed(estimate.value)} ({interval})"
    at = (0.0, y + 0.36) if beside is None else (beside, y)
    axes.text(
        *at,
        text,
        transform=axes.get_yaxis_transform(),
        fontsize=11.5,
        fontweight="bold",
        color=color(method),
        va="center",
    )
    axes.plot(
        [(estimate.value or 0.0) * metric.scale],
        [y],
        marker=marker(method),
        markersize=11,
        color=color(method),
        markeredgecolor=BG,
        markeredgewidth=1.8,
    )


def _detectable(axes: Axes, pairs: Sequence[Comparison], metric: Metric, reach: float, both: bool) -> None:
    """Dashed lines at the smallest detectable difference, the median one where there are several pairs."""
    known = [pair.detectable for pair in pairs if pair.detectable is not None]
    at = float(np.median(known)) * metric.scale if known else reach
    if at < reach:
        at = -at if metric.better == "less" else at
        for side in (at, -at)[: 1 + both]:
            axes.axvline(side, color=MUTED, linewidth=1, dashes=(3, 3))
        shown = f"detectable {metric.number(abs(at) / metric.scale)}"
        edge = "right" if abs(at) > 0.55 * reach else "center"
        above(axes, at, 4, shown, ha=edge, color=MUTED)


def _interval(axes: Axes, y: float, pair: Comparison, metric: Metric, reach: float) -> None:
    scale, estimate = metric.scale, pair.difference
    low, high, middle = (float(number or 0) * scale for number in (estimate.low, estimate.high, estimate.value))
    shown = max(low, -reach), min(high, reach)
    axes.plot(shown, (y, y), color=INK, linewidth=2.4, solid_capstyle="butt")
    if pair.inner.low is not None and pair.inner.high is not None:
        inner = max(pair.inner.low * scale, -reach), min(pair.inner.high * scale, reach)
        axes.plot(inner, (y, y), color=INK, linewidth=7, solid_capstyle="butt")
    for end, sign in ((low, "<"), (high, ">")):
        if abs(end) > reach:
            axes.plot([np.clip(end, -reach, reach)], [y], marker=sign, markersize=9, color=INK, clip_on=False)


def _write_ends(axes: Axes, y: float, pair: Comparison, reach: float) -> None:
    """The symbol of the only interval, and its numbers above it."""
    metric, estimate, height = pair.metric, pair.difference, y + 0.2
    shown = [float(np.clip((end or 0.0) * metric.scale, -reach, reach)) for end in (estimate.low, estimate.high)]
    middle = (estimate.value or 0.0) * metric.scale
    axes.plot([middle], [y], marker="o", markersize=11, color=INK, markeredgecolor=BG, markeredgewidth=1.8)
    for end, number in ((shown[0], estimate.low), (shown[1], estimate.high)):
        write(axes, end, height, metric.signed(number), ha="center", va="bottom")
    write(
        axes,
        middle,
        height,
        metric.signed(estimate.value),
        ha="center",
        va="bottom",
        fontsize=13,
        fontweight="bold",
        color=INK,
    )
