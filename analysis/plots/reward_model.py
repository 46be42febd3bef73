"""Charts of the reward model's accuracy on held-out pairs: by margin, and by difference in length."""

from collections.abc import Sequence
from typing import Any

from ..findings import Findings
from ..validity.reward_model import Bin, RewardModel
from .charts import BG, MUTED, Chart
from .svg import NARROW, above, caption_axes, grid, panel, ticks, to_svg
from .theme import LIGHT

CHANCE = 50.0


def accuracy_charts(findings: Findings) -> list[Chart]:
    """Accuracy by margin and by length of each reward model, as far as measured."""
    charts = []
    for place, model in enumerate(findings.reward_models):
        for name, title, bins in (
            ("margin", "margin", model.by_margin),
            ("length", "length of the chosen answer", model.by_length),
        ):
            if bins:
                charts.append(_accuracy_chart(f"pairs-{name}-{place}", f"by {title}", bins, model))
    return charts


def _accuracy_chart(name: str, title: str, bins: Sequence[Bin], model: RewardModel) -> Chart:
    """One row for each bin: accuracy, 95% Wilson interval and number of pairs."""
    figure, axes = panel(NARROW, 66 + 24 * len(bins), left=92, right=56)
    axes.set_ylim(len(bins) - 0.4, -0.6)
    axes.set_yticks([])
    grid(axes, "x")
    axes.axvline(CHANCE, color=MUTED, linewidth=1.1, dashes=(1.2, 3))
    if model.accuracy and model.accuracy.value is not None:
        axes.axvline(100 * model.accuracy.value, color=LIGHT["line"], linewidth=2)
    side = axes.get_yaxis_transform()
    for row, found in enumerate(bins):
        low, value, high = (100 * (n or 0.0) for n in (found.accuracy.low, found.accuracy.value, found.accuracy.high))
        axes.plot([low, high], [row, row], color=LIGHT["ink"], linewidth=2.2, solid_capstyle="butt")
        axes.plot([value], [row], marker="o", markersize=8, color=LIGHT["ink"], markeredgecolor=BG)
        style: dict[str, Any] = {"transform": side, "va": "center", "fontsize": 11}
        axes.text(-0.05, row, found.label, ha="right", color=LIGHT["ink2"], **style)
        axes.text(1.04, row, f"{found.pairs:,}", ha="left", color=MUTED, **style)
    lowest = min(100 * (found.accuracy.low or 0.0) for found in bins)
    axes.set_xlim(min(lowest - 2, CHANCE - 4), 101)
    ticks(axes, "x", 5)
    caption_axes(figure, axes, title, "accuracy (%)")
    above(axes, 101, 14, "pairs", 6, color=MUTED)
    spoken = "; ".join(f"{found.label}: {100 * (found.accuracy.value or 0.0):.1f}% of {found.pairs}" for found in bins)
    return Chart(name, to_svg(figure, name, f"{title}. {spoken}"))
