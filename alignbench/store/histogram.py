"""Histograms as small SVG images, written without a plotting library because a run writes many."""

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, MARGIN = 480, 240, 36


def histogram_svg(title: str, values: Sequence[float], bins: int = 20) -> str:
    """Counts of `values` in `bins` bars of equal width; values that are not finite are counted in the title."""
    numbers = np.asarray(values, dtype=float).ravel()
    finite = numbers[np.isfinite(numbers)]
    odd = len(numbers) - len(finite)
    note = f", {odd} not finite" if odd else ""
    counts, edges = np.histogram(finite, bins=bins)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
            '  font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            f'<text x="{MARGIN}" y="20">{escape(title)} (n = {len(numbers)}{note})</text>',
            *_bars(counts),
            _label(edges[0], MARGIN, "start"),
            _label(edges[-1], WIDTH - MARGIN, "end"),
            f'<text x="{MARGIN - 4}" y="{MARGIN + 8}" text-anchor="end">{counts.max()}</text>',
            "</svg>\n",
        ]
    )


def _bars(counts: NDArray[np.int64]) -> list[str]:
    width = (WIDTH - 2 * MARGIN) / len(counts)
    tall = (HEIGHT - 2 * MARGIN) / max(1, counts.max())
    return [
        f'<rect x="{MARGIN + i * width:.1f}" y="{HEIGHT - MARGIN - count * tall:.1f}" width="{width - 1:.1f}" '
        f'height="{count * tall:.1f}" fill="#4c72b0"><title>{count}</title></rect>'
        for i, count in enumerate(counts)
    ]


def _label(edge: float, x: int, anchor: str) -> str:
    return f'<text x="{x}" y="{HEIGHT - MARGIN + 16}" text-anchor="{anchor}">{edge:.4g}</text>'
