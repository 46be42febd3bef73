"""Learning curves of every seed and their mean, over generated tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from alignbench.core import metric_names

from ..statistics import mean_interval
from .load import Run, Study
from .mlflow_reader import Curve

FROM_SEEDS = 5
"""Seeds from which a band is drawn; with fewer the t-interval varies strongly from point to point."""
MOST_POINTS = 150

Points = tuple[list[float], list[float]]


@dataclass(frozen=True)
class Line:
    """One method: a line for each seed, their mean at shared steps, and the band of the mean."""

    seeds: tuple[Points, ...]
    mean_x: list[float]
    mean_y: list[float]
    band: Points | None


def tokens_at(run: Run, steps: Sequence[int]) -> list[float]:
    """Generated tokens at these steps; step 0 is before the first."""
    spent = run.curves.get(metric_names.TOKENS)
    if spent is None:
        return [float(step) for step in steps]
    return [float(n) for n in np.interp(steps, [0, *spent.steps], [0.0, *spent.values])]


def learning_line(runs: Sequence[Run], metric: str, scale: float) -> Line | None:
    """The curves of one method; None when no run has the metric."""
    curves = [(run, thin_out(run.curves[metric])) for run in runs if metric in run.curves]
    if not curves:
        return None
    seeds = [(tokens_at(run, curve.steps), [value * scale for value in curve.values]) for run, curve in curves]
    shared = sorted(set.intersection(*(set(curve.steps) for _, curve in curves)))
    if not shared:
        return None
    by_step = [dict(zip(curve.steps, curve.values, strict=True)) for _, curve in curves]
    table = np.array([[values[step] for step in shared] for values in by_step])
    spent = np.array([tokens_at(run, shared) for run, _ in curves])
    return Line(tuple(seeds), list(spent.mean(axis=0)), list(table.mean(axis=0) * scale), _band(table * scale))


def thin_out(curve: Curve) -> Curve:
    """Every k-th point of a long curve, the last one included; nothing is averaged."""
    stride = -(-len(curve.steps) // MOST_POINTS)
    keep = [place for place in range(len(curve.steps)) if place % stride == 0 or place == len(curve.steps) - 1]
    return Curve(tuple(curve.steps[i] for i in keep), tuple(curve.values[i] for i in keep))


def _band(table: np.ndarray) -> Points | None:
    if len(table) < FROM_SEEDS:
        return None
    ends = [_ends([float(value) for value in column]) for column in table.T]
    return [low for low, _ in ends], [high for _, high in ends]


def _ends(values: list[float]) -> tuple[float, float]:
    """The t-interval at one point; no width where all seeds agree, as they do at the start."""
    interval = mean_interval(values)
    if interval.low is None or interval.high is None:
        return (values[0], values[0]) if interval.reason == "zero_pooled_variance" else (float("nan"), float("nan"))
    return interval.low, interval.high


def learning_lines(study: Study, methods: Sequence[str], metric: str, scale: float = 1.0) -> dict[str, Line]:
    """The line of every method; empty unless all have one."""
    lines = {method: learning_line(study.runs_of(method), metric, scale) for method in methods}
    return {method: line for method, line in lines.items() if line} if all(lines.values()) else {}


def first_known(study: Study, names: Sequence[str]) -> str | None:
    """The first of these metrics with a curve in every method; None if there is none."""
    return next(
        (
            name
            for name in names
            if all(any(name in run.curves for run in study.runs_of(method)) for method in study.methods)
        ),
        None,
    )


def gain_paths(runs: Sequence[Run], gain: str, price: str, scale: float) -> list[Points]:
    """(price, gain) of each run at the steps that have both."""
    paths = []
    for run in runs:
        if gain in run.curves and price in run.curves:
            ys, xs = (
                dict(zip(c.steps, c.values, strict=True)) for c in (thin_out(run.curves[gain]), run.curves[price])
            )
            steps = [step for step in ys if step in xs and isfinite(ys[step]) and isfinite(xs[step])]
            if steps:
                paths.append(([xs[step] for step in steps], [ys[step] * scale for step in steps]))
    return paths


def mean_path(paths: Sequence[Points]) -> Points:
    """The mean over runs, point by point, as far as the shortest run goes."""
    shortest = min(len(x) for x, _ in paths)
    xs, ys = (np.mean([path[axis][:shortest] for path in paths], axis=0) for axis in (0, 1))
    return list(xs), list(ys)


def x_axis(study: Study) -> tuple[float, str]:
    """Divisor and label of the x-axis: generated tokens, or steps if tokens were not counted."""
    runs = [run for run in study.runs if run.curves]
    if any(metric_names.TOKENS not in run.curves for run in runs):
        return 1.0, "RL steps (tokens were not counted)"
    divisor, unit = token_unit([run.curves[metric_names.TOKENS].values[-1] for run in runs])
    return divisor, f"generated tokens ({unit})" if divisor > 1 else "generated tokens"


def token_unit(ends: Sequence[float]) -> tuple[float, str]:
    """A divisor for token counts of this size, and its name."""
    most = max(ends, default=0.0)
    return (1e6, "millions") if most >= 2e6 else (1e3, "thousands") if most >= 2e3 else (1.0, "tokens")
