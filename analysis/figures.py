"""The charts of a report: every seed drawn, intervals for differences, no bars."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from matplotlib.axes import Axes

from .canvas import NARROW, WIDE, caption_axes, grid, panel, ticks, to_svg, write
from .compare import Comparison
from .findings import Arm, Findings, last_validated
from .learning import Line, Points, mean_path
from .metrics import MINUS, Metric, listed, method_label, significant
from .statistics import Estimate
from .theme import DASHES, LIGHT, MARKERS, PALETTE_SIZE, method_color

INK, MUTED, BG = LIGHT["ink"], LIGHT["muted"], LIGHT["bg"]


@dataclass(frozen=True)
class Chart:
    """A drawing by name; a wide chart has a second drawing for narrow pages."""

    name: str
    svg: str
    narrow: str | None = None


def color(arm: Arm) -> str:
    """The color that this method has everywhere."""
    return LIGHT[method_color(arm.place)]


def marker(arm: Arm) -> str:
    """The symbol that this method has everywhere."""
    return MARKERS[arm.place % PALETTE_SIZE]


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
    figure, axes = panel(width, 92 + rows * 40, left=12, right=12, top=44)
    reach = _reach(pairs, metric)
    turned = metric.better == "less"
    axes.set_xlim((reach, -reach) if turned else (-reach, reach))
    axes.set_ylim(-0.6, rows - 0.25)
    axes.set_yticks([])
    if findings.declared.margin:
        zone = findings.declared.margin * metric.scale
        axes.axvspan(-zone, zone, color=LIGHT["zone"], linewidth=0)
    axes.axvline(0, color=INK, linewidth=1.2)
    _detectable(axes, pairs, metric, reach)
    for place, pair in enumerate(reversed(pairs)):
        _interval(axes, place, pair, metric, reach, findings.arm(pair.treatment) if several else None)
    top = axes.get_ylim()[1] + 0.08
    left, right = findings.baseline.label, "" if several else method_label(pairs[0].treatment)
    shift = (-1 if turned else 1) * reach * 0.02
    write(axes, -shift, top, f"\N{LEFTWARDS ARROW} {left} better", ha="right", va="bottom", color=MUTED)
    better = f"{right} better" if right else f"better than {left}"
    write(axes, shift, top, f"{better} \N{RIGHTWARDS ARROW}", ha="left", va="bottom", color=MUTED)
    ticks(axes, "x", 7 if width > NARROW else 5, _signed_tick)
    unit = f" ({metric.unit})" if metric.unit else ""
    caption_axes(axes, "", f"difference in {metric.label}{unit}")
    label = "; ".join(f"{method_label(pair.treatment)} minus {method_label(pair.baseline)} "
                      f"{_spoken(pair.difference, metric)}" for pair in pairs)
    return to_svg(figure, f"difference-{width:.0f}", label)


def _signed_tick(value: float) -> str:
    return f"{value:+.6g}".replace("-", MINUS) if value else "0"


def _spoken(estimate: Estimate, metric: Metric) -> str:
    return f"{metric.difference(estimate.value)}, 95% interval {metric.signed(estimate.low)} to {metric.signed(estimate.high)}"


def _reach(pairs: Sequence[Comparison], metric: Metric) -> float:
    ends = [max(abs(pair.difference.low or 0), abs(pair.difference.high or 0)) for pair in pairs]
    detectable = [pair.detectable for pair in pairs if pair.detectable is not None and pair.detectable < 1.6 * max(ends)]
    widest = min(max(ends), 4 * float(np.median(ends)))
    return 1.12 * metric.scale * max([widest, *detectable, *(pair.margin or 0 for pair in pairs)])


def _detectable(axes: Axes, pairs: Sequence[Comparison], metric: Metric, reach: float) -> None:
    """Dashed lines at the smallest detectable difference, the median one where there are several pairs."""
    known = [pair.detectable for pair in pairs if pair.detectable is not None]
    at = float(np.median(known)) * metric.scale if known else reach
    if at < reach:
        for side in (-at, at):
            axes.axvline(side, color=MUTED, linewidth=1, dashes=(3, 3))
        shown = f"detectable {metric.number(at / metric.scale)}"
        edge = "right" if at > 0.55 * reach else "center"
        write(axes, -at if metric.better == "less" else at, axes.get_ylim()[1] + 0.08, shown, ha=edge, va="bottom", color=MUTED)


def _interval(axes: Axes, y: float, pair: Comparison, metric: Metric, reach: float, arm: Arm | None) -> None:
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
    symbol = marker(arm) if arm else "o"
    axes.plot([middle], [y], marker=symbol, markersize=11, color=color(arm) if arm else INK,
              markeredgecolor=BG, markeredgewidth=1.8)
    above = 0.34 if arm else 0.2
    if arm:
        text = f"{arm.label} {metric.signed(estimate.value)} ({metric.signed(estimate.low)} to {metric.signed(estimate.high)})"
        axes.text(0.005, y + above, text, transform=axes.get_yaxis_transform(), fontsize=11.5, fontweight="bold",
                  color=color(arm), va="center")
        return
    for end, number in ((shown[0], estimate.low), (shown[1], estimate.high)):
        write(axes, end, y + above, metric.signed(number), ha="center", va="bottom")
    write(axes, middle, y + above, metric.signed(estimate.value), ha="center", va="bottom", fontsize=13,
          fontweight="bold", color=INK)


def seeds_chart(findings: Findings) -> Chart | None:
    """Every seed of every method on one axis, with the t-interval of the mean under them."""
    if not any(arm.scores for arm in findings.arms):
        return None
    wide, narrow = (_draw_seeds(findings, width) for width in (WIDE, NARROW))
    return Chart("seeds", wide, narrow)


def _draw_seeds(findings: Findings, width: float) -> str:
    arms, metric = findings.arms, findings.metric
    figure, axes = panel(width, 52 + 72 * len(arms), left=12, right=14, top=6, bottom=40)
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
    caption_axes(axes, "", metric.axis())
    label = "; ".join(f"{arm.label}: seeds {listed([metric.level(score) for score in arm.scores])}, "
                      f"mean {metric.level(arm.level.value)}" for arm in arms if arm.scores)
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
    return [((arm.name, run.seed), value) for arm in findings.arms for run in arm.runs
            if run.status != "finished" and (value := last_validated(run, findings.metric)) is not None]


def _seed_row(axes: Axes, row: int, arm: Arm, findings: Findings, width: float) -> None:
    metric, scale = findings.metric, findings.metric.scale
    low, high = axes.get_xlim()
    crosses = {key[1]: value for key, value in _crosses(findings) if key[0] == arm.name}
    points = [(run.metrics[metric.name] * scale, str(run.seed)) for run in arm.runs
              if run.status == "finished" and isfinite(run.metrics.get(metric.name, float("nan")))]
    points += [(value * scale, f"{seed} failed") for seed, value in crosses.items()]
    _seed_labels(axes, row, points, width)
    for x, text in points:
        failed = text.endswith("failed")
        axes.plot([x], [row + 0.62], marker="x" if failed else marker(arm), markersize=8,
                  color=LIGHT["bad"] if failed else color(arm), markeredgecolor=LIGHT["bad"] if failed else BG,
                  markeredgewidth=2.2 if failed else 1)
    right = axes.get_yaxis_transform()
    axes.plot([0.009], [row + 0.17], marker=marker(arm), markersize=7.5, color=color(arm), transform=right,
              markeredgecolor=BG)
    axes.text(0.009 + 10 / width, row + 0.17, arm.label, transform=right, fontsize=12, fontweight="bold", color=color(arm),
              va="center")
    axes.text(1, row + 0.17, mean_text(arm, metric, width > NARROW), transform=right, fontsize=11,
              color=LIGHT["ink2"], ha="right", va="center")
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


def curve_chart(
    name: str,
    title: str,
    arms: Sequence[Arm],
    lines: dict[str, Line],
    x_axis: tuple[float, str],
    *,
    behind: Sequence[str] = (),
    each_seed: bool = True,
    limits: tuple[float, float] | None = None,
    start: float | None = None,
) -> Chart:
    """A number over generated tokens: every seed thin, the mean thick, a 95% t-band from five seeds up."""
    figure, axes = panel(NARROW, 224, right=_label_room(arms))
    divisor, below = x_axis
    for other in behind:
        axes.plot(np.divide(lines[other].mean_x, divisor), lines[other].mean_y, color=MUTED, linewidth=1.1, alpha=0.4)
    for arm in arms:
        _draw_line(axes, arm, lines[arm.name], divisor, each_seed)
    if start is not None:
        axes.axhline(start, color=MUTED, linewidth=1.1, dashes=(1.2, 3))
    if limits:
        axes.set_ylim(*limits)
    axes.margins(x=0)
    grid(axes, "y")
    ticks(axes, "y", 6)
    ticks(axes, "x", 4)
    axes.set_xlim(left=0)
    _end_labels(axes, {arm: lines[arm.name].mean_y[-1] for arm in arms})
    caption_axes(axes, title, below)
    ends = "; ".join(f"{arm.label} ends at {significant(lines[arm.name].mean_y[-1])}" for arm in arms)
    return Chart(name, to_svg(figure, name, f"{title} over {below}. {ends}"))


def _label_room(arms: Sequence[Arm]) -> float:
    return min(130.0, 24 + 7.2 * max(len(arm.label) for arm in arms))


def _draw_line(axes: Axes, arm: Arm, line: Line, divisor: float, each_seed: bool) -> None:
    if each_seed:
        for x, y in line.seeds:
            axes.plot(np.divide(x, divisor), y, color=color(arm), linewidth=1, alpha=0.5)
    if line.band and each_seed:
        low, high = line.band
        axes.fill_between(np.divide(line.mean_x, divisor), low, high, color=color(arm), alpha=0.15, linewidth=0)
    dashes = DASHES[arm.place % PALETTE_SIZE]
    axes.plot(np.divide(line.mean_x, divisor), line.mean_y, color=color(arm), linewidth=2.3, linestyle=dashes)


def _end_labels(axes: Axes, ends: dict[Arm, float]) -> None:
    """The names at the ends of the lines, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    step = 13 * (high - low) / 162
    places: list[tuple[float, Arm]] = []
    for arm, y in sorted(ends.items(), key=lambda item: item[1]):
        places.append((max(y, places[-1][0] + step) if places else y, arm))
    shift = min(0.0, high + step - places[-1][0]) if places else 0.0
    transform = axes.get_yaxis_transform()
    for y, arm in places:
        axes.plot([1.03], [y + shift], marker=marker(arm), markersize=7, color=color(arm), transform=transform,
                  clip_on=False, markeredgecolor=BG)
        axes.text(1.055, y + shift, arm.label, transform=transform, color=color(arm), fontsize=11, fontweight="bold",
                  va="center")


def path_chart(name: str, title: str, below: str, arms: Sequence[Arm], paths: dict[str, list[Points]]) -> Chart:
    """What was gained against how far the model moved: one path for each run, or only its end where many would mix."""
    figure, axes = panel(NARROW, 224, right=_label_room(arms))
    ends = {}
    for arm in arms:
        dashes = DASHES[arm.place % PALETTE_SIZE]
        axes.plot(*mean_path(paths[arm.name]), color=color(arm), linewidth=2, linestyle=dashes)
        for x, y in paths[arm.name]:
            if len(arms) < 3:
                axes.plot(x, y, color=color(arm), linewidth=1, alpha=0.5)
            axes.plot(x[-1:], y[-1:], marker=marker(arm), markersize=6.5, color=color(arm), markeredgecolor=BG)
        ends[arm] = float(np.mean([y[-1] for _, y in paths[arm.name]]))
    grid(axes, "y")
    ticks(axes, "y", 6)
    ticks(axes, "x", 5)
    _end_labels(axes, ends)
    caption_axes(axes, title, below)
    spoken = "; ".join(f"{arm.label} ends at {significant(y)}" for arm, y in ends.items())
    return Chart(name, to_svg(figure, name, f"{title} against {below}. {spoken}"))


def length_chart(arms: Sequence[Arm], answers: dict[str, list[int]]) -> Chart | None:
    """Quantiles of the length of the final answers; `answers` holds token counts by row label."""
    rows = {label: sorted(tokens) for label, tokens in answers.items() if len(tokens) >= 10}
    if not rows:
        return None
    figure, axes = panel(NARROW, 66 + 24 * len(rows), left=122, right=12)
    by_label = {f"{arm.label}{kind}": arm for arm in arms for kind in ("", " right", " wrong")}
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks([])
    grid(axes, "x")
    for row, (label, tokens) in enumerate(rows.items()):
        arm, cuts = by_label[label], np.quantile(tokens, (0.1, 0.25, 0.5, 0.75, 0.9))
        axes.plot(cuts[[0, 4]], [row, row], color=color(arm), linewidth=2)
        axes.plot(cuts[[1, 3]], [row, row], color=color(arm), linewidth=7, solid_capstyle="round")
        axes.plot(cuts[[2]], [row], marker=marker(arm), markersize=9, color=color(arm), markeredgecolor=BG)
        axes.text(-0.04, row, label, transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=11,
                  fontweight="bold", color=color(arm))
    axes.set_xlim(left=0)
    ticks(axes, "x", 5)
    caption_axes(axes, "length of final answers", "tokens per answer")
    spoken = "; ".join(f"{label}: median {np.median(tokens):.0f}" for label, tokens in rows.items())
    return Chart("answer-length", to_svg(figure, "answer-length", f"Length of final answers in tokens. {spoken}"))


def cost_chart(findings: Findings, key: str) -> Chart | None:
    """The headline metric against one price: small symbols are seeds, the open symbol is the mean."""
    cost = next(cost for cost in findings.costs if cost.key == key)
    metric, arms = findings.metric, [arm for arm in findings.arms if arm.scores]
    if cost.reason or not arms or any(len(cost.values[arm.name]) != len(arm.scores) for arm in arms):
        return None
    figure, axes = panel(NARROW, 224, right=14)
    means = {}
    for arm in arms:
        x = np.divide(cost.values[arm.name], cost.divisor)
        y = np.multiply(arm.scores, metric.scale)
        axes.plot(x, y, marker=marker(arm), markersize=6, linestyle="", color=color(arm), alpha=0.8,
                  markeredgecolor=BG)
        means[arm] = float(x.mean()), float(y.mean())
        axes.plot([means[arm][0]], [means[arm][1]], marker=marker(arm), markersize=12, linestyle="",
                  markerfacecolor=BG, markeredgecolor=color(arm), markeredgewidth=2.2)
    axes.margins(x=0.28, y=0.16)
    _name_means(axes, means)
    grid(axes, "y")
    ticks(axes, "y", 6)
    ticks(axes, "x", 4)
    caption_axes(axes, metric.axis(), cost.label.lower().replace("gib", "GiB"))
    spoken = "; ".join(f"{arm.label} {significant(x)} at {significant(y)}" for arm, (x, y) in means.items())
    return Chart(f"cost-{key}", to_svg(figure, f"cost-{key}", f"{metric.axis()} against {cost.label}. {spoken}"))


def _name_means(axes: Axes, means: dict[Arm, tuple[float, float]]) -> None:
    """Names beside the open symbols, on the side that has room, pushed apart in height."""
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    step, taken = 13 * (high - low) / 162, -float("inf")
    for arm, (x, y) in sorted(means.items(), key=lambda item: item[1][1]):
        place = max(y, taken + step)
        taken = place
        outside = x > (left + right) / 2
        shift = (right - left) * 0.035 * (-1 if outside else 1)
        write(axes, x + shift, place, arm.label, color=color(arm), fontweight="bold", va="center",
              ha="right" if outside else "left")
