"""Inline SVG: the legend key of a method, and interval rows of a table."""

from markupsafe import Markup

from ..study.methods import Method
from ..study.metrics import MINUS
from .theme import PALETTE_SIZE, method_color

WIDTH, MIDDLE = 300.0, 150.0
_SHAPES = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "M0 -5l5 5l-5 5l-5 -5z",
    "M-4 -4h8v8h-8z",
    "M0 -5l5 9h-10z",
    "M0 5l5 -9h-10z",
    "M-1.7 -5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
    "M-5 -3l2 -2l3 3l3 -3l2 2l-3 3l3 3l-2 2l-3 -3l-3 3l-2 -2l3 -3z",
    "M0 -5l4.8 3.5l-1.8 5.5h-6l-1.8 -5.5z",
)
_LINES = ("", "7 3", "1.6 3", "7 3 1.6 3", "10 4", "4 2 1 2 1 2", "3 5", "8 3 3 3")


def key(method: Method) -> Markup:
    """The legend key of a method: its line and symbol."""
    place, color = method.place % PALETTE_SIZE, f"var(--{method_color(method.place)})"
    dashes = f' stroke-dasharray="{_LINES[place]}"' if _LINES[place] else ""
    return Markup(
        f'<svg class="key" viewBox="0 0 28 14" aria-hidden="true"><path d="M0 7H28" fill="none" stroke="{color}" '
        f'stroke-width="2.4"{dashes}/><path d="{_SHAPES[place]}" transform="translate(14 7)" fill="{color}" '
        'stroke="var(--bg)" stroke-width="1.2"/></svg>'
    )


def interval_row(
    value: float | None, low: float | None, high: float | None, reach: float, method: Method | None = None
) -> Markup:
    """An interval against zero; `reach` is the end of the axis, an arrowhead marks an interval cut by the axis."""
    if value is None or low is None or high is None or reach <= 0:
        return Markup('<span class="mut">no interval to draw</span>')
    at, start, end = (MIDDLE + 142 * max(-1.0, min(1.0, n / reach)) for n in (value, low, high))
    color = f"var(--{method_color(method.place)})" if method else "var(--ink)"
    symbol = "" if abs(value) > reach else _symbol(at, color, method)
    arrows = ('<path class="ink" d="M2 14l8 -5v10z"/>' if low < -reach else "") + (
        '<path class="ink" d="M298 14l-8 -5v10z"/>' if high > reach else ""
    )
    return Markup(
        f'<svg viewBox="0 0 {WIDTH:.0f} 28" aria-hidden="true"><path class="zero" d="M{MIDDLE:.0f} 4V24"/>'
        f'<path class="ci" d="M{start:.1f} 14H{end:.1f}"/>{arrows}{symbol}</svg>'
    )


def _symbol(at: float, color: str, method: Method | None) -> str:
    shape = _SHAPES[method.place % PALETTE_SIZE] if method else _SHAPES[0]
    return (
        f'<path d="{shape}" transform="translate({at:.1f} 14)" fill="{color}" stroke="var(--bg)" stroke-width="1.6"/>'
    )


def axis_row(reach: float) -> Markup:
    """The shared axis under a column of interval rows."""
    step = max(1, round(reach / 2.5)) if reach > 1.5 else 0.5
    places = [n * step for n in range(-4, 5) if abs(n * step) <= reach]
    marks = "".join(
        f'<path class="ax" d="M{MIDDLE + 142 * n / reach:.1f} 4v4"/><text x="{MIDDLE + 142 * n / reach:.1f}" y="21" '
        f'text-anchor="middle">{f"{n:+g}".replace("-", MINUS) if n else 0}</text>'
        for n in places
    )
    return Markup(f'<svg viewBox="0 0 {WIDTH:.0f} 24" aria-hidden="true"><path class="ax" d="M8 4H292"/>{marks}</svg>')
