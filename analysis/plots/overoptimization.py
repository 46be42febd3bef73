"""Charts of proxy and gold reward against KL: every seed of a method, its mean, and the other methods in gray."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator

from ..findings import Findings
from ..study.curves import Points, gain_paths, mean_path
from ..study.methods import Method
from ..study.metrics import metric_named
from ..validity.overoptimization import GOLD, KL, PROXY, OverOptimization
from .charts import BG, MUTED, Chart, color, marker
from .svg import NARROW, above, grid, ticks, to_svg, twin_panel
from .theme import DASHES, LIGHT, PALETTE_SIZE

Paths = dict[str, list[Points]]
ROUND = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


def proxy_charts(findings: Findings) -> list[Chart]:
    """One chart for each method whose quality is known, all on the same axes; none if KL was not measured."""
    shown = {finding.method: finding for finding in findings.over_optimization}
    methods = [method for method in findings.methods if method.name in shown]
    proxy, gold = (
        {method.name: gain_paths(findings.study.runs_of(method.name), name, KL, 1.0) for method in methods}
        for name in (PROXY, GOLD)
    )
    if not methods or not all((*proxy.values(), *gold.values())):
        return []
    return [_chart(method, shown[method.name], proxy, gold) for method in methods]


def _chart(method: Method, finding: OverOptimization, proxy: Paths, gold: Paths) -> Chart:
    figure, upper, lower = twin_panel(NARROW, 176, right=14)
    furthest = max(x for paths in proxy.values() for xs, _ in paths for x in xs)
    for axes, paths, title in ((upper, proxy, "proxy reward, trained on"), (lower, gold, "gold reward, true quality")):
        _draw(axes, method, paths)
        _root_axis(axes, furthest)
        if finding.peak.step != finding.end.step:
            axes.axvline(max(finding.peak.kl or 0.0, 0.0), color=MUTED, linewidth=1.1, dashes=(1.2, 3))
        axes.annotate(
            f"{method.label}: {title}", (0, 1), (-36, 12), xycoords="axes fraction", textcoords="offset points",
            fontsize=11.5, fontweight="bold", color=LIGHT["ink2"],
        )  # fmt: skip
    upper.set_xticks([])
    if finding.peak.step != finding.end.step:
        above(lower, max(finding.peak.kl or 0.0, 0.0), -10, "peak", 3, color=MUTED)
    edge, height = lower.get_position().x1, figure.get_size_inches()[1] * 72
    figure.text(edge, 3 / height, "KL from the SFT model (nats)", fontsize=11, color=MUTED, ha="right")
    return Chart(f"proxy-{method.place}", to_svg(figure, f"proxy-{method.place}", _spoken(method, finding)))


def _draw(axes: Axes, method: Method, paths: Paths) -> None:
    """The seeds of this method thin, its mean thick, the means of the other methods behind them."""
    for other, found in paths.items():
        if other != method.name:
            axes.plot(*_drawable(mean_path(found)), color=MUTED, linewidth=1.1, alpha=0.5)
    for path in paths[method.name]:
        x, y = _drawable(path)
        axes.plot(x, y, color=color(method), linewidth=1, alpha=0.5)
        axes.plot(x[-1:], y[-1:], marker=marker(method), markersize=6.5, color=color(method), markeredgecolor=BG)
    dashes = DASHES[method.place % PALETTE_SIZE]
    axes.plot(*_drawable(mean_path(paths[method.name])), color=color(method), linewidth=2.3, linestyle=dashes)
    values = [y for found in paths.values() for _, ys in found for y in ys]
    pad = 0.06 * (max(values) - min(values)) or 0.1
    axes.set_ylim(min(values) - pad, max(values) + pad)
    grid(axes, "y")
    ticks(axes, "y", 5)


def _drawable(path: Points) -> Points:
    """KL clipped at zero: estimates can be negative, and the axis is a square root."""
    return list(np.maximum(path[0], 0.0)), path[1]


def _root_axis(axes: Axes, furthest: float) -> None:
    """KL spaced by its square root, the distance d of Gao et al. 2022, so that early steps remain distinguishable."""
    axes.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0.0)), np.square))
    top = max(furthest, 1e-3) * 1.04
    axes.set_xlim(0, top)
    marks = tick_marks(top)
    axes.xaxis.set_major_locator(FixedLocator(marks))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{mark:g}" for mark in marks]))


def tick_marks(top: float, apart: float = 0.09) -> list[float]:
    """Zero and round numbers up to `top`, at least this share of the root axis apart; larger ones have priority."""
    kept: list[float] = []
    for mark in reversed([mark for mark in ROUND if mark <= top]):
        if not kept or np.sqrt(kept[-1] / top) - np.sqrt(mark / top) >= apart:
            kept.append(mark)
    return [0.0, *(mark for mark in reversed(kept) if np.sqrt(mark / top) >= apart)]


def _spoken(method: Method, finding: OverOptimization) -> str:
    gold, kl = metric_named(GOLD), metric_named(KL)
    told = "; ".join(
        f"{name}: KL {kl.number(p.kl)}, proxy {gold.number(p.proxy)}, gold {gold.number(p.gold)}"
        for name, p in finding.points.items()
    )
    return f"{method.label}, proxy and gold reward against KL from the SFT model. {told}"
