"""Charts of intervals: the difference that decides, and every seed with its mean."""

from collections.abc import Sequence
from math import isfinite

import numpy as np
from matplotlib.axes import Axes

from .arms import Arm, last_validated
from .canvas import NARROW, WIDE, above, caption_axes, grid, panel, ticks, to_svg, write
from .compare import Comparison
from .figures import BG, INK, MUTED, Chart, color, marker
from .findings import Findings
from .metrics import MINUS, Metric, listed, method_label
from .statistics import Estimate
from .theme import LIGHT


def difference_chart(findings: Findings) -> Chart | None:
    """The deciding interval of each method against the baseline, with zero, margin and smallest detectable effect."""
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
            _name_row(axes, place, pair, findings.arm(pair.treatment), -224 / (width - 244) if beside else None)
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
    """Which side of zero favors whom."""
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


def _name_row(axes: Axes, y: float, pair: Comparison, arm: Arm, beside: float | None) -> None:
    """The method of a row with its numbers: beside the chart, or above the interval where the page is narrow."""
    metric, estimate = pair.metric, pair.difference
    text = (
        f"{arm.label} {metric.signed(estimate.value)} ({metric.signed(estimate.low)} to {metric.signed(estimate.high)})"
    )
    at = (0.0, y + 0.36) if beside is None else (beside, y)
    axes.text(
        *at, text, transform=axes.get_yaxis_transform(), fontsize=11.5, fontweight="bold", color=color(arm), va="center"
    )
    axes.plot(
        [(estimate.value or 0.0) * metric.scale],
        [y],
        marker=marker(arm),
        markersize=11,
        color=color(arm),
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
    if pair.half.low is not None and pair.half.high is not None:
        half = max(pair.half.low * scale, -reach), min(pair.half.high * scale, reach)
        axes.plot(half, (y, y), color=INK, linewidth=7, solid_capstyle="round")
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


def seeds_chart(findings: Findings) -> Chart | None:
    """Every seed of every method on one axis, with the t-interval of the mean under them."""
    if not any(arm.scores for arm in findings.arms):
        return None
    wide, narrow = (_draw_seeds(findings, width) for width in (WIDE, NARROW))
    return Chart("seeds", wide, narrow)


def _draw_seeds(findings: Findings, width: float) -> str:
    arms, metric = findings.arms, findings.metric
    figure, axes = panel(width, 52 + 72 * len(arms), left=12, right=14, top=6, bottom=38)
    low, high = seed_range(findings)
    axes.set_xlim(low, high)
    axes.set_ylim(len(arms), 0)
    axes.set_yticks([])
    grid(axes, "x")
    for row, arm in enumerate(arms):
        if row:
            axes.axhline(row, color=LIGHT["line"], linewidth=1)
        _seed_row(axes, row, arm, findings, width)
    start = findings.baseline.start
    if start is not None and low <= start * metric.scale <= high:
        axes.axvline(start * metric.scale, color=MUTED, linewidth=1.1, dashes=(1.2, 3))
        write(axes, start * metric.scale, len(arms) - 0.04, " SFT start", color=MUTED, va="bottom")
    ticks(axes, "x", 8 if width > NARROW else 4)
    caption_axes(figure, axes, "", metric.axis())
    label = "; ".join(
        f"{arm.label}: seeds {listed([metric.level(score) for score in arm.scores])}, "
        f"mean {metric.level(arm.level.value)}"
        for arm in arms
        if arm.scores
    )
    return to_svg(figure, f"seeds-{width:.0f}", label)


def seed_range(findings: Findings) -> tuple[float, float]:
    """The axis of the seed chart: all seeds, and the intervals unless they dwarf the seeds."""
    scale = findings.metric.scale
    points = [score * scale for arm in findings.arms for score in arm.scores if isfinite(score)]
    points += [value * scale for _, value in _crosses(findings)]
    low, high = min(points), max(points)
    room = max(high - low, 0.02 * abs(high), 1e-3)
    for arm in findings.arms:
        if arm.level.low is not None and arm.level.high is not None:
            low = min(low, max(arm.level.low * scale, min(points) - 1.5 * room))
            high = max(high, min(arm.level.high * scale, max(points) + 1.5 * room))
    start = findings.baseline.start
    if start is not None and low - 1.2 * room <= start * scale < low:
        low = start * scale
    pad = 0.07 * (high - low) + (0.15 * room if high == low else 0)
    return low - pad, high + pad


def _crosses(findings: Findings) -> list[tuple[tuple[str, int], float]]:
    """Seeds without a final number, at their last validation."""
    return [
        ((arm.name, run.seed), value)
        for arm in findings.arms
        for run in arm.runs
        if run.status != "finished" and (value := last_validated(run, findings.metric)) is not None
    ]


def _seed_row(axes: Axes, row: int, arm: Arm, findings: Findings, width: float) -> None:
    metric, scale = findings.metric, findings.metric.scale
    low, high = axes.get_xlim()
    crosses = {key[1]: value for key, value in _crosses(findings) if key[0] == arm.name}
    points = [
        (run.metrics[metric.name] * scale, str(run.seed))
        for run in arm.runs
        if run.status == "finished" and isfinite(run.metrics.get(metric.name, float("nan")))
    ]
    points += [(value * scale, f"{seed} failed") for seed, value in crosses.items()]
    _seed_labels(axes, row, points, width)
    for x, text in points:
        failed = text.endswith("failed")
        axes.plot(
            [x],
            [row + 0.62],
            marker="x" if failed else marker(arm),
            markersize=8,
            color=LIGHT["bad"] if failed else color(arm),
            markeredgecolor=LIGHT["bad"] if failed else BG,
            markeredgewidth=2.2 if failed else 1,
        )
    right = axes.get_yaxis_transform()
    axes.plot(
        [0.009], [row + 0.17], marker=marker(arm), markersize=7.5, color=color(arm), transform=right, markeredgecolor=BG
    )
    axes.text(
        0.009 + 10 / width,
        row + 0.17,
        arm.label,
        transform=right,
        fontsize=12,
        fontweight="bold",
        color=color(arm),
        va="center",
    )
    axes.text(
        1,
        row + 0.17,
        mean_text(arm, metric, width > NARROW),
        transform=right,
        fontsize=11,
        color=LIGHT["ink2"],
        ha="right",
        va="center",
    )
    if arm.level.low is None or arm.level.high is None or arm.level.value is None:
        return
    ends = max(low, arm.level.low * scale), min(high, arm.level.high * scale)
    axes.plot(ends, [row + 0.84] * 2, color=color(arm), linewidth=2.2, solid_capstyle="butt")
    axes.plot([arm.level.value * scale] * 2, [row + 0.77, row + 0.91], color=color(arm), linewidth=2.6)
    for end, outside, sign in ((low, arm.level.low * scale < low, "<"), (high, arm.level.high * scale > high, ">")):
        if outside:
            axes.plot([end], [row + 0.84], marker=sign, markersize=8, color=color(arm), clip_on=False)


def mean_text(arm: Arm, metric: Metric, whole: bool = True) -> str:
    """mean 62.5, 95% 58.6 to 66.4; the mean is written also where it has no interval."""
    if arm.level.value is None:
        return "no number"
    text = f"mean {metric.number(arm.level.value)}"
    if arm.level.low is None:
        return f"{text}, no interval" if whole else text
    return f"{text}{', 95%' if whole else ','} {metric.number(arm.level.low)} to {metric.number(arm.level.high)}"


def _seed_labels(axes: Axes, row: int, points: Sequence[tuple[float, str]], width: float) -> None:
    """Seed numbers above their symbols, in a second line where two would touch."""
    low, high = axes.get_xlim()
    unit = (high - low) / (width - 26)
    edge, raised = -float("inf"), False
    for x, text in sorted(points):
        half = (3.4 * len(text) + 2) * unit
        raised = x - half < edge and not raised
        edge = max(edge, x + half)
        write(axes, x, row + (0.32 if raised else 0.46), text, fontsize=10, color=MUTED, ha="center", va="center")
