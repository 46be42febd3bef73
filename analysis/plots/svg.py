"""Converts a matplotlib figure to SVG with the colors and fonts of the surrounding page."""

import io
import re
from collections.abc import Callable
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ..study.metrics import MINUS
from .theme import LIGHT, stylesheet

NARROW, WIDE = 344.0, 760.0  # units; one unit is one pixel at full width, so text stays about 11 px
FONT = 'font-family:Inter,ui-sans-serif,system-ui,"Segoe UI",Roboto,"Liberation Sans",Arial,sans-serif'
_COLORS = {color: f"var(--{name})" for name, color in LIGHT.items()}


def panel(
    width: float, height: float, *, left: float = 36, right: float = 58, top: float = 26, bottom: float = 36
) -> tuple[Figure, Axes]:
    """An empty chart of this many units: horizontal grid lines, a bottom axis, no frame."""
    figure = _sheet(width, height)
    return figure, _axes(figure, left, bottom, width - left - right, height - top - bottom)


def twin_panel(width: float, height: float, *, left: float = 36, right: float = 58) -> tuple[Figure, Axes, Axes]:
    """Two charts of this height, one above the other, over one x-axis."""
    whole = 2 * height - 10
    figure = _sheet(width, whole)
    across, up = width - left - right, height - 52
    return figure, _axes(figure, left, whole - 26 - up, across, up), _axes(figure, left, 36, across, up)


def _sheet(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    figure.patch.set_visible(False)
    return figure


def _axes(figure: Figure, left: float, bottom: float, across: float, up: float) -> Axes:
    width, height = figure.get_size_inches() * 72
    axes = figure.add_axes((left / width, bottom / height, across / width, up / height))
    axes.patch.set_visible(False)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LIGHT["line"])
    axes.tick_params(axis="x", length=4, color=LIGHT["line"], labelcolor=LIGHT["muted"], labelsize=11, pad=3)
    axes.tick_params(axis="y", length=0, labelcolor=LIGHT["muted"], labelsize=11, pad=4)
    axes.set_axisbelow(True)
    return axes


def write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Text at a place given in data units, never clipped."""
    style = {"fontsize": 11, "color": LIGHT["ink2"], "clip_on": False, **style}
    axes.text(x, y, text, **style)


def above(axes: Axes, x: float, units: float, text: str, aside: float = 0, **style: Any) -> None:
    """Text over the chart, this many units above its upper edge and beside the place."""
    axes.annotate(
        text,
        (x, 1),
        (aside, units),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        fontsize=11,
        **style,
    )


def caption_axes(figure: Figure, axes: Axes, above: str, below: str) -> None:
    """What is drawn, above the chart on the left; the unit of x, below it on the right."""
    height = figure.get_size_inches()[1] * 72
    figure.text(0, (height - 12) / height, above, fontsize=11.5, fontweight="bold", color=LIGHT["ink2"])
    edge = axes.get_position().x1
    figure.text(edge, 3 / height, below, fontsize=11, color=LIGHT["muted"], ha="right")


def ticks(axes: Axes, which: str, count: int, show: Callable[[float], str] | None = None) -> None:
    """About this many round tick values, written with a true minus."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(nbins=count, steps=[1, 2, 2.5, 5, 10]))
    write_tick = show or (lambda value: f"{value:.6g}".replace("-", MINUS))
    axis.set_major_formatter(FuncFormatter(lambda value, _: write_tick(value)))


def grid(axes: Axes, which: str) -> None:
    """Faint lines across one axis."""
    axes.grid(axis="x" if which == "x" else "y", color=LIGHT["grid"], linewidth=1)


def to_svg(figure: Figure, name: str, label: str) -> str:
    """The figure as one <svg>; equal figures give equal text.

    `name` makes ids unique on the page; `label` is the text alternative with the numbers.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "path.simplify_threshold": 0.3}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    raw = buffer.getvalue()
    width, height = (round(inches * 72) for inches in figure.get_size_inches())
    body = _shorten(raw[raw.index(">", raw.index("<svg")) + 1 :], name)
    size = f'viewBox="0 0 {width} {height}" style="max-width:{_most(width)}px"'
    return f'<svg {size} role="img" aria-label="{escape(label)}">{body}'


def _most(width: int) -> int:
    return 420 if width <= NARROW else 960


def _shorten(body: str, name: str) -> str:
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<defs>\s*<style.*?</defs>", "", body, flags=re.S)
    body = body.replace("xlink:href", "href")
    body = re.sub(r"font: (?:(bold|\d+) )?([\d.]+)px [^;\"]*", _font, body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)  # the page's own font
    body = re.sub(r' transform="rotate\(-?0 [^)]*\)"', "", body)
    for color, variable in _COLORS.items():
        body = body.replace(color, variable)
    body = re.sub(r'(?<= d=")[^"]*|(?<=\()[-\d. ,]+(?=\))|(?<= [xy]=")[\d.]+', _round_all, body)
    used = set(re.findall(r"#([\w-]+)", body))
    body = re.sub(r' id="([\w.-]+)"', lambda found: found[0] if found[1] in used else "", body)
    body = re.sub(r"stroke-linejoin: (?:miter|round); ?|stroke-linecap: butt; ?|; stroke-linecap: square", "", body)
    return re.sub(r">\s+<", "><", re.sub(r"\s*\n\s*", " ", body)).strip()


def _font(found: re.Match[str]) -> str:
    weight = "font-weight:600;" if found[1] else ""
    return f"{weight}font-size:{found[2]}px"


def _round_all(found: re.Match[str]) -> str:
    text = re.sub(r"-?\d+\.\d+(?:e-?\d+)?", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), found[0])
    return " ".join(text.split())


def standalone(svg: str) -> str:
    """The same drawing as a standalone file that includes the palette."""
    style = f"<style>{stylesheet('svg')}svg{{background:var(--bg);{FONT}}}</style>"
    head, body = svg.split(">", 1)
    return head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1) + ">" + style + body + "\n"
