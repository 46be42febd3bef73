"""Colors, markers and line styles of the methods; one palette for light, dark and print."""

from typing import Any

LIGHT = {
    "bg": "#fbfaf7",
    "card": "#fffffe",
    "ink": "#1c2027",
    "ink2": "#454c59",
    "muted": "#676e7a",
    "line": "#e3e0d8",
    "grid": "#ebe8e1",
    "zone": "#e9e6dc",
    "soft": "#f4f2ec",
    "ok": "#1d6b45",
    "warn": "#8a5a00",
    "bad": "#a8261f",
    "m0": "#0069a8",
    "m1": "#c24a00",
    "m2": "#007a5c",
    "m3": "#9c4379",
    "m4": "#6b5d00",
    "m5": "#5b4bb5",
    "m6": "#56606c",
    "m7": "#8a4a26",
}
DARK = {
    "bg": "#15171b",
    "card": "#1b1e24",
    "ink": "#e9e7e2",
    "ink2": "#bdc0c8",
    "muted": "#989ea9",
    "line": "#2d3138",
    "grid": "#24282f",
    "zone": "#2b3038",
    "soft": "#1e2127",
    "ok": "#6cc79a",
    "warn": "#e0b04d",
    "bad": "#f0857d",
    "m0": "#6cb6ea",
    "m1": "#f3925c",
    "m2": "#4fc3a3",
    "m3": "#e097c4",
    "m4": "#cdbb4e",
    "m5": "#a99ff2",
    "m6": "#a9b2bd",
    "m7": "#d39a78",
}
MARKERS = ("o", "D", "s", "^", "v", "P", "X", "p")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 2.4)),
    (0, (1.2, 2)),
    (0, (6, 2, 1.2, 2)),
    (0, (9, 3)),
    (0, (3, 1.5, 1, 1.5, 1, 1.5)),
    (0, (2, 4)),
    (0, (8, 2, 2, 2)),
)
PALETTE_SIZE = len(MARKERS)
TERMINAL_MARKS = ("(o)", "(<>)", "[ ]", "/\\", "\\/", "(+)", "(x)", "(*)")


def method_color(place: int) -> str:
    """The color token of the method at this place; colors repeat after eight."""
    return f"m{place % PALETTE_SIZE}"


def variables(palette: dict[str, str]) -> str:
    """A palette as CSS custom properties."""
    return ";".join(f"--{name}:{color}" for name, color in palette.items())


def stylesheet(scope: str = ":root") -> str:
    """Light by default, dark where the reader prefers it on a screen, always light on paper."""
    return (
        f"{scope}{{color-scheme:light dark;{variables(LIGHT)}}}"
        f"@media screen and (prefers-color-scheme:dark){{{scope}{{{variables(DARK)}}}}}"
    )
