"""Charts of learning curves, reward against KL, answer lengths and costs, with every seed drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from ..findings import Findings
from ..study.curves import Line, Points, mean_path
from ..study.methods import Method
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


def color(method: Method) -> str:
    """The color of a method in all charts."""
    return LIGHT[method_color(method.place)]


def marker(method: Method) -> str:
    """The marker of a method in all charts."""
    return MARKERS[method.place % PALETTE_SIZE]


def curve_chart(
    name: str,
    title: str,
    methods: Sequence[Method],
    lines: dict[str, Line],
    x_axis: tuple[float, str],
    *,
    behind: Sequence[str] = (),
    each_seed: bool = True,
    limits: tuple[float, float] | None = None,
    start: float | None = None,
) -> Chart:
    """A metric over generated tokens: seeds thin, mean thick, 95% t-band for five seeds or more."""
    figure, axes = panel(NARROW, 224, right=_label_room(methods))
    divisor, below = x_axis
    for other in behind:
        axes.plot(np.divide(lines[other].mean_x, divisor), lines[other].mean_y, color=MUTED, linewidth=1.1, alpha=0.4)
    for method in methods:
        _draw_line(axes, method, lines[method.name], divisor, each_seed)
    if start is not None:
        axes.axhline(start, color=MUTED, linewidth=1.1, dashes=(1.2, 3))
    if limits:
        axes.set_ylim(*limits)
    axes.margins(x=0)
    grid(axes, "y")
    ticks(axes, "y", 6)
    ticks(axes, "x", 4)
    axes.set_xlim(left=0)
    _end_labels(axes, {method: lines[method.name].mean_y[-1] for method in methods})
    caption_axes(figure, axes, title, below)
    ends = "; ".join(f"{method.label} ends at {significant(lines[method.name].mean_y[-1])}" for method in methods)
    return Chart(name, to_svg(figure, name, f"{title} over {below}. {ends}"))


def _label_room(methods: Sequence[Method]) -> float:
    return min(130.0, 24 + 7.2 * max(len(method.label) for method in methods))


def _draw_line(axes: Axes, method: Method, line: Line, divisor: float, each_seed: bool) -> None:
    if each_seed:
        for x, y in line.seeds:
            axes.plot(np.divide(x, divisor), y, color=color(method), linewidth=1, alpha=0.5)
    if line.band and each_seed:
        low, high = line.band
        axes.fill_between(np.divide(line.mean_x, divisor), low, high, color=color(method), alpha=0.15, linewidth=0)
    dashes = DASHES[method.place % PALETTE_SIZE]
    axes.plot(np.divide(line.mean_x, divisor), line.mean_y, color=color(method), linewidth=2.3, linestyle=dashes)


def _end_labels(axes: Axes, ends: dict[Method, float]) -> None:
    """The names at the ends of the lines, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    step = 13 * (high - low) / 162
    places: list[tuple[float, Method]] = []
    for method, y in sorted(ends.items(), key=lambda item: item[1]):
        places.append((max(y, places[-1][0] + step) if places else y, method))
    shift = min(0.0, high + step - places[-1][0]) if places else 0.0
    transform = axes.get_yaxis_transform()
    for y, method in places:
        axes.plot(
            [1.03],
            [y + shift],
            marker=marker(method),
            markersize=7,
            color=color(method),
            transform=transform,
            clip_on=False,
            markeredgecolor=BG,
        )
        axes.text(
            1.055,
            y + shift,
            method.label,
            transform=transform,
            color=color(method),
            fontsize=11,
            fontweight="bold",
            va="center",
        )


def path_chart(name: str, title: str, below: str, methods: Sequence[Method], paths: dict[str, list[Points]]) -> Chart:
    """Reward against KL: one path for each run; with three methods or more only the end of each run and the mean."""
    figure, axes = panel(NARROW, 224, right=_label_room(methods))
    ends = {}
    for method in methods:
        dashes = DASHES[method.place % PALETTE_SIZE]
        axes.plot(*mean_path(paths[method.name]), color=color(method), linewidth=2, linestyle=dashes)
        for x, y in paths[method.name]:
            if len(methods) < 3:
                axes.plot(x, y, color=color(method), linewidth=1, alpha=0.5)
            axes.plot(x[-1:], y[-1:], marker=marker(method), markersize=6.5, color=color(method), markeredgecolor=BG)
        ends[method] = float(np.mean([y[-1] for _, y in paths[method.name]]))
    grid(axes, "y")
    ticks(axes, "y", 6)
    ticks(axes, "x", 5)
    _end_labels(axes, ends)
    caption_axes(figure, axes, title, below)
    spoken = "; ".join(f"{method.label} ends at {significant(y)}" for method, y in ends.items())
    return Chart(name, to_svg(figure, name, f"{title} against {below}. {spoken}"))


def length_chart(methods: Sequence[Method], answers: dict[str, list[int]]) -> Chart | None:
    """Quantiles of the length of the final answers; `answers` holds token counts by row label."""
    rows = {label: sorted(tokens) for label, tokens in answers.items() if len(tokens) >= 10}
    if not rows:
        return None
    figure, axes = panel(NARROW, 66 + 24 * len(rows), left=122, right=12)
    by_label = {f"{method.label}{kind}": method for method in methods for kind in ("", " right", " wrong")}
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks([])
    grid(axes, "x")
    for row, (label, tokens) in enumerate(rows.items()):
        method, cuts = by_label[label], np.quantile(tokens, (0.1, 0.25, 0.5, 0.75, 0.9))
        axes.plot(cuts[[0, 4]], [row, row], color=color(method), linewidth=2)
        axes.plot(cuts[[1, 3]], [row, row], color=color(method), linewidth=7, solid_capstyle="round")
        axes.plot(cuts[[2]], [row], marker=marker(method), markersize=9, color=color(method), markeredgecolor=BG)
        axes.text(
            -0.04,
            row,
            label,
            transform=axes.get_yaxis_transform(),
            ha="right",
            va="center",
            fontsize=11,
            fontweight="bold",
            color=color(method),
        )
    axes.set_xlim(left=0)
    ticks(axes, "x", 5)
    caption_axes(figure, axes, "length of final answers", "tokens per answer")
    spoken = "; ".join(f"{label}: median {np.median(tokens):.0f}" for label, tokens in rows.items())
    return Chart("answer-length", to_svg(figure, "answer-length", f"Length of final answers in tokens. {spoken}"))


def cost_chart(findings: Findings, key: str) -> Chart | None:
    """The headline metric against one cost: small symbols are seeds, the open symbol is the mean."""
    cost = next(cost for cost in findings.costs if cost.key == key)
    metric, methods = findings.metric, [method for method in findings.methods if method.scores]
    if cost.reason or not methods or any(len(cost.values[method.name]) != len(method.scores) for method in methods):
        return None
    figure, axes = panel(NARROW, 224, right=14)
    means = {}
    for method in methods:
        x = np.divide(cost.values[method.name], cost.divisor)
        y = np.multiply(method.scores, metric.scale)
        axes.plot(
            x, y, marker=marker(method), markersize=6, linestyle="", color=color(method), alpha=0.8, markeredgecolor=BG
        )
        means[method] = float(x.mean()), float(y.mean())
        axes.plot(
            [means[method][0]],
            [means[method][1]],
            marker=marker(method),
            markersize=12,
            linestyle="",
            markerfacecolor=BG,
            markeredgecolor=color(method),
            markeredgewidth=2.2,
        )
    axes.margins(x=0.28, y=0.16)
    _widen(axes, [x for x, _ in means.values()])
    _name_means(axes, means)
    grid(axes, "y")
    ticks(axes, "y", 6)
    ticks(axes, "x", 4)
    caption_axes(figure, axes, metric.axis(), cost.label.lower().replace("gib", "GiB"))
    spoken = "; ".join(f"{method.label} {significant(x)} at {significant(y)}" for method, (x, y) in means.items())
    return Chart(f"cost-{key}", to_svg(figure, f"cost-{key}", f"{metric.axis()} against {cost.label}. {spoken}"))


def _widen(axes: Axes, centers: Sequence[float]) -> None:
    """Widen the x-axis to 20% of the mean cost, so that nearly equal costs form a narrow column."""
    low, high = axes.get_xlim()
    middle, least = sum(centers) / len(centers), 0.1 * sum(centers) / len(centers)
    axes.set_xlim(min(low, middle - least), max(high, middle + least))


def _name_means(axes: Axes, means: dict[Method, tuple[float, float]]) -> None:
    """Names beside the open symbols, on the side that has room, pushed apart in height."""
    low, high = axes.get_ylim()
    left, right = axes.get_xlim()
    step, taken = 13 * (high - low) / 162, -float("inf")
    for method, (x, y) in sorted(means.items(), key=lambda item: item[1][1]):
        place = max(y, taken + step)
        taken = place
        outside = x > (left + right) / 2
        shift = (right - left) * 0.035 * (-1 if outside else 1)
        write(
            axes,
            x + shift,
            place,
            method.label,
            color=color(method),
            fontweight="bold",
            va="center",
            ha="right" if outside else "left",
        )
