"""Chart of the final score of every seed, with the interval of each mean."""

from collections.abc import Sequence
from math import isfinite

from matplotlib.axes import Axes

from ..findings import Findings
from ..study.methods import Method, last_validation_score
from ..study.metrics import Metric, listed
from .charts import BG, MUTED, Chart, color, marker
from .svg import NARROW, WIDE, caption_axes, grid, panel, ticks, to_svg, write
from .theme import LIGHT


def seeds_chart(findings: Findings) -> Chart | None:
    """Every seed of every method on one axis, with the t-interval of the mean under them."""
    if not any(method.scores for method in findings.methods):
        return None
    wide, narrow = (_draw_seeds(findings, width) for width in (WIDE, NARROW))
    return Chart("seeds", wide, narrow)


def _draw_seeds(findings: Findings, width: float) -> str:
    methods, metric = findings.methods, findings.metric
    figure, axes = panel(width, 52 + 72 * len(methods), left=12, right=14, top=6, bottom=38)
    low, high = seed_range(findings)
    axes.set_xlim(low, high)
    axes.set_ylim(len(methods), 0)
    axes.set_yticks([])
    grid(axes, "x")
    for row, method in enumerate(methods):
        if row:
            axes.axhline(row, color=LIGHT["line"], linewidth=1)
        _seed_row(axes, row, method, findings, width)
    start = findings.baseline.start
    if start is not None and low <= start * metric.scale <= high:
        axes.axvline(start * metric.scale, color=MUTED, linewidth=1.1, dashes=(1.2, 3))
        free = (
            (1.0, "center_baseline") if len(methods) > 1 else (0.96, "bottom")
        )  # between two methods nothing is drawn
        write(axes, start * metric.scale, free[0], " SFT start", color=MUTED, va=free[1])
    ticks(axes, "x", 8 if width > NARROW else 4)
    caption_axes(figure, axes, "", metric.axis())
    label = "; ".join(
        f"{method.label}: seeds {listed([metric.level(score) for score in method.scores])}, "
        f"mean {metric.level(method.level.value)}"
        for method in methods
        if method.scores
    )
    return to_svg(figure, f"seeds-{width:.0f}", label)


def seed_range(findings: Findings) -> tuple[float, float]:
    """The axis of the seed chart: all seeds, and the intervals unless they are far wider than the seeds."""
    scale = findings.metric.scale
    points = [score * scale for method in findings.methods for score in method.scores if isfinite(score)]
    points += [value * scale for _, value in _crosses(findings)]
    low, high = min(points), max(points)
    room = max(high - low, 0.02 * abs(high), 1e-3)
    for method in findings.methods:
        if method.level.low is not None and method.level.high is not None:
            low = min(low, max(method.level.low * scale, min(points) - 1.5 * room))
            high = max(high, min(method.level.high * scale, max(points) + 1.5 * room))
    start = findings.baseline.start
    if start is not None and low - 1.2 * room <= start * scale < low:
        low = start * scale
    pad = 0.07 * (high - low) + (0.15 * room if high == low else 0)
    return low - pad, high + pad


def _crosses(findings: Findings) -> list[tuple[tuple[str, int], float]]:
    """Runs without a final score, at their last validation score."""
    return [
        ((method.name, run.seed), value)
        for method in findings.methods
        for run in method.runs
        if run.status != "finished" and (value := last_validation_score(run, findings.metric)) is not None
    ]


def _seed_row(axes: Axes, row: int, method: Method, findings: Findings, width: float) -> None:
    metric, scale = findings.metric, findings.metric.scale
    low, high = axes.get_xlim()
    crosses = {key[1]: value for key, value in _crosses(findings) if key[0] == method.name}
    points = [
        (run.metrics[metric.name] * scale, str(run.seed))
        for run in method.runs
        if run.status == "finished" and isfinite(run.metrics.get(metric.name, float("nan")))
    ]
    points += [(value * scale, f"{seed} failed") for seed, value in crosses.items()]
    _seed_labels(axes, row, points, width)
    for x, text in points:
        failed = text.endswith("failed")
        axes.plot(
            [x],
            [row + 0.62],
            marker="x" if failed else marker(method),
            markersize=8,
            color=LIGHT["bad"] if failed else color(method),
            markeredgecolor=LIGHT["bad"] if failed else BG,
            markeredgewidth=2.2 if failed else 1,
        )
    right = axes.get_yaxis_transform()
    axes.plot(
        [0.009],
        [row + 0.17],
        marker=marker(method),
        markersize=7.5,
        color=color(method),
        transform=right,
        markeredgecolor=BG,
    )
    axes.text(
        0.009 + 10 / width,
        row + 0.17,
        method.label,
        transform=right,
        fontsize=12,
        fontweight="bold",
        color=color(method),
        va="center",
    )
    axes.text(
        1,
        row + 0.17,
        mean_text(method, metric, width > NARROW),
        transform=right,
        fontsize=11,
        color=LIGHT["ink2"],
        ha="right",
        va="center",
    )
    if method.level.low is None or method.level.high is None or method.level.value is None:
        return
    ends = max(low, method.level.low * scale), min(high, method.level.high * scale)
    axes.plot(ends, [row + 0.84] * 2, color=color(method), linewidth=2.2, solid_capstyle="butt")
    axes.plot([method.level.value * scale] * 2, [row + 0.77, row + 0.91], color=color(method), linewidth=2.6)
    for end, outside, sign in (
        (low, method.level.low * scale < low, "<"),
        (high, method.level.high * scale > high, ">"),
    ):
        if outside:
            axes.plot([end], [row + 0.84], marker=sign, markersize=8, color=color(method), clip_on=False)


def mean_text(method: Method, metric: Metric, whole: bool = True) -> str:
    """mean 62.5, 95% 58.6 to 66.4; the mean alone if it has no interval."""
    if method.level.value is None:
        return "no score"
    text = f"mean {metric.number(method.level.value)}"
    if method.level.low is None:
        return f"{text}, no interval" if whole else text
    return f"{text}{', 95%' if whole else ','} {metric.number(method.level.low)} to {metric.number(method.level.high)}"


def _seed_labels(axes: Axes, row: int, points: Sequence[tuple[float, str]], width: float) -> None:
    """Seed numbers above their symbols; labels that would overlap are merged into one list from left to right."""
    low, high = axes.get_xlim()
    unit = (high - low) / (width - 26)
    groups: list[list[tuple[float, str]]] = []
    for point in sorted(points):
        groups.append([point])
        while len(groups) > 1 and _reach(groups[-2], unit)[1] > _reach(groups[-1], unit)[0]:
            groups[-2:] = [groups[-2] + groups[-1]]
    for group in groups:
        left, right = _reach(group, unit)
        inside = max(low, left) - left - max(0.0, right - high)
        text = ", ".join(name for _, name in group)
        write(axes, (left + right) / 2 + inside, row + 0.46, text, fontsize=10, color=MUTED, ha="center", va="center")


def _reach(group: Sequence[tuple[float, str]], unit: float) -> tuple[float, float]:
    """The extent of the label of some seeds; `unit` is one unit of the drawing on the axis."""
    middle = (group[0][0] + group[-1][0]) / 2
    half = (3.0 * len(", ".join(name for _, name in group)) + 3) * unit
    return middle - half, middle + half
