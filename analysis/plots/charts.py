"""Charts of curves, paths, lengths and costs: every seed drawn, no bars."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from ..findings import Findings
from ..study.curves import Line, Points, mean_path
from ..study.methods import Arm
from ..study.metrics import significant
from .svg import NARROW, caption_axes, grid, panel, ticks, to_svg, write
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
    caption_axes(figure, axes, title, below)
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
        axes.plot(
            [1.03],
            [y + shift],
            marker=marker(arm),
            markersize=7,
            color=color(arm),
            transform=transform,
            clip_on=False,
            markeredgecolor=BG,
        )
        axes.text(
            1.055,
            y + shift,
            arm.label,
            transform=transform,
            color=color(arm),
            fontsize=11,
            fontweight="bold",
            va="center",
        )


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
    caption_axes(figure, axes, title, below)
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
        axes.text(
            -0.04,
            row,
            label,
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="center",
            fontsize=11,
            fontweight="bold",
            color=color(arm),
        )
    axes.set_xlim(left=0)
    ticks(axes, "x", 5)
    caption_axes(figure, axes, "length of final answers", "tokens per answer")
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
        axes.plot(x, y, marker=marker(arm), markersize=6, linestyle="", color=color(arm), alpha=0.8, markeredgecolor=BG)
        means[arm] = float(x.mean()), float(y.mean())
        axes.plot(
            [means[arm][0]],
            [means[arm][1]],
            marker=marker(arm),
            markersize=12,
            linestyle="",
            markerfacecolor=BG,
            markeredgecolor=color(arm),
            markeredgewidth=2.2,
        )
    axes.margins(x=0.28, y=0.16)
    _widen(axes, [x for x, _ in means.values()])
    _name_means(axes, means)
    grid(axes, "y")
    ticks(axes, "y", 6)
    ticks(axes, "x", 4)
    caption_axes(figure, axes, metric.axis(), cost.label.lower().replace("gib", "GiB"))
    spoken = "; ".join(f"{arm.label} {significant(x)} at {significant(y)}" for arm, (x, y) in means.items())
    return Chart(f"cost-{key}", to_svg(figure, f"cost-{key}", f"{metric.axis()} against {cost.label}. {spoken}"))


def _widen(axes: Axes, centers: Sequence[float]) -> None:
    """Costs within a few percent are drawn as the narrow column that they are."""
    low, high = axes.get_xlim()
    middle, least = sum(centers) / len(centers), 0.1 * sum(centers) / len(centers)
    axes.set_xlim(min(low, middle - least), max(high, middle + least))


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
        write(
            axes,
            x + shift,
            place,
            arm.label,
            color=color(arm),
            fontweight="bold",
            va="center",
            ha="right" if outside else "left",
        )
