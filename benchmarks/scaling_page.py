"""The page on how seconds and memory grow: its tables, its exponents and its figure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression
from typing import Any

from PIL import Image

from analysis.plots.theme import DASHES, LIGHT, MARKERS
from benchmarks.against_trl import say, table
from benchmarks.lower_bound import Least
from benchmarks.workload import PARTS, Held

MIB = 1 << 20
LAST = 3
"""Points that an exponent is fitted to."""
TARGET = 1.2
FLOOR, LEAST = "floor", "the least"

HEAD = """\
# How it grows

Made by `python -m benchmarks.scaling --write` on a CPU, one thread for each process; do not edit. Only one thing is
varied at a time: K, the answers to a prompt; their length; the model; the vocabulary; the runs of a study. The rest is
a step of GRPO on the embedded model's shape, 4 prompts of 32 tokens (2 where the model is varied) with 8 answers of
32, two optimizer steps, microbatches of 32, weights random, no answer ending before its limit. An exponent is the
slope of the last {last} points when both axes are logarithms: 1 is proportional.

The floor of a part of the step is the larger of two times: that of its matrix products alone, each timed as
`torch.bmm`, or as the quicker of `torch.mm` and oneDNN, in the same process, and that of its bytes (weights, keys and
values, what the optimizer holds) at the speed at which 256 MiB are copied. A prompt is read once for its group in it,
and nothing else is computed: no normalisation, no softmax, no sampling, no Python. Bytes of a small model that stay in
a cache move faster than that.

Memory is what the update holds at most, counted tensor by tensor: weights, optimizer (two moments and the gradient),
and all that is made on the way. The target is {target} times the weights, the optimizer and what the layers keep of one
microbatch; logits are in what is measured, and not in what it is compared with. The frozen reference is in neither.

![Seconds of a step and memory of its update by K, length, model, vocabulary and runs](scaling.png)
"""
BATCHES = """\
## Vocabulary times batch

What the update holds beside weights and optimizer, MiB, in microbatches of 16. It should grow with neither the answers
of a step nor the vocabulary; where that is larger still, torch makes the embedding's gradient whole.
"""
STUDIES = """\
## Runs in a study

Whole studies as they are typed, start-up, evaluation and report included: `n_jobs` runs at a time on two cores. Memory
is the most that all processes had together, shared pages counted once. The floor is the study of one run, as often as
there are runs, shared among the jobs; it can be gone below, for start-up and report are paid once.
"""
GPU = """\
## On a GPU

`python -m benchmarks.gpu` makes the same comparison on a CUDA machine, in the shapes of Qwen2.5-0.5B, Gemma-2B and
Qwen2.5-3B. It was not yet run on a GPU.
"""


@dataclass(frozen=True)
class Point:
    """What was found for one cell."""

    x: float
    seconds: dict[str, float]
    """The median step, by part."""
    floor: dict[str, Least]
    held: Held


@dataclass(frozen=True)
class Sweep:
    """What was found for a study of so many runs."""

    runs: int
    jobs: int
    seconds: float
    memory: int
    """The most that all its processes had at once, shared pages counted once."""


def exponent(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The slope of log y over log x at the last points."""
    logs = ([math.log(value) for value in values[-LAST:]] for values in (xs, ys))
    return linear_regression(*logs).slope


COLUMNS: dict[str, Callable[[Point], float]] = {
    **{part: lambda p, part=part: p.seconds[part] for part in PARTS},
    "step": lambda p: sum(p.seconds.values()),
    "matmul": lambda p: sum(least.matmul for least in p.floor.values()),
    "bandwidth": lambda p: sum(least.bandwidth for least in p.floor.values()),
    "floor": lambda p: sum(least.seconds for least in p.floor.values()),
    "MiB": lambda p: p.held.peak / MIB,
}
"""What is fitted; all but the last are seconds."""


def of_axis(name: str, points: Sequence[Point]) -> str:
    """The table of one thing that is varied, its last row the exponents."""
    head = [name, *COLUMNS, "times the floor", "times the least memory"]
    rows = []
    for p in points:
        found = [read(p) for read in COLUMNS.values()]
        cells = [f"{value:.3f}" for value in found[:-1]] + [f"{found[-1]:,.1f}"]
        rows.append([f"{p.x:,.0f}", *cells, *_ratios(p)])
    fitted = [f"**{exponent([p.x for p in points], list(map(read, points))):.2f}**" for read in COLUMNS.values()]
    return table(head, [*rows, ["**exponent**", *fitted, "", ""]])


def _ratios(p: Point) -> list[str]:
    return [f"{COLUMNS['step'](p) / COLUMNS['floor'](p):.1f}", f"{p.held.peak / p.held.least:.2f}"]


def of_batches(found: Sequence[tuple[int, int, Held]]) -> str:
    """One row for each vocabulary, one column for each number of answers."""
    answers = sorted({count for _, count, _ in found})
    rows = []
    for vocabulary in sorted({v for v, _, _ in found}):
        held = {count: h for v, count, h in found if v == vocabulary}
        cells = [(held[n].peak - held[n].weights - held[n].optimizer) / MIB for n in answers]
        cells.append(held[answers[0]].activations / MIB)
        rows.append([f"{vocabulary:,}", *(f"{cell:,.1f}" for cell in cells)])
    return table(["vocabulary", *(f"{n} answers" for n in answers), "of it activations"], rows)


def of_studies(found: Sequence[Sweep]) -> str:
    """One row for each number of runs, and the exponents; the first is of one run alone."""
    by_jobs = {jobs: [s for s in found if s.jobs == jobs] for jobs in sorted({s.jobs for s in found})}
    head = ["runs", *(f"{j} at a time, {what}" for j in by_jobs for what in ("s", "times the floor", "MiB"))]
    rows = []
    for runs in sorted({s.runs for s in found}):
        told = [_told(found[0], next((s for s in sweeps if s.runs == runs), None)) for sweeps in by_jobs.values()]
        rows.append([str(runs), *(cell for cells in told for cell in cells)])
    slopes = [(_slope(sweeps, "seconds"), "", _slope(sweeps, "memory")) for sweeps in by_jobs.values()]
    return table(head, [*rows, ["**exponent**", *(cell for cells in slopes for cell in cells)]])


def _told(one: Sweep, sweep: Sweep | None) -> tuple[str, str, str]:
    if sweep is None:
        return "", "", ""
    return (
        f"{sweep.seconds:.1f}",
        f"{sweep.seconds / ideal(one, sweep.runs, sweep.jobs):.2f}",
        f"{sweep.memory / MIB:,.0f}",
    )


def _slope(sweeps: Sequence[Sweep], what: str) -> str:
    if len(sweeps) < 2:
        return ""
    return f"**{exponent([s.runs for s in sweeps], [getattr(s, what) for s in sweeps]):.2f}**"


def ideal(one: Sweep, runs: int, jobs: int) -> float:
    """Seconds if a run took what it takes alone, and jobs ran side by side at no cost."""
    return one.seconds * math.ceil(runs / jobs)


def verdict(found: dict[str, list[Point]]) -> str:
    """How many settings meet the target of memory, and which is furthest from it."""
    ratios = {f"{name} {p.x:,.0f}": p.held.peak / p.held.least for name, points in found.items() for p in points}
    met, worst = sum(ratio <= TARGET for ratio in ratios.values()), max(ratios, key=ratios.__getitem__)
    most = f"{ratios[worst]:.2f} times ({worst})"
    return f"**{met} of {len(ratios)}** settings meet the target of memory; the most is {most}."


def draw(found: dict[str, list[Point]], swept: Sequence[Sweep], target: Path) -> None:
    """Seconds above, memory below, one column for each thing that is varied; both axes are logarithms."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.2), layout="constrained")
    panels = figure.subplots(2, len(found) + 1)
    for (name, points), (top, bottom) in zip(found.items(), panels.T, strict=False):
        xs = [p.x for p in points]
        seconds = {line: [COLUMNS[line](p) for p in points] for line in (*PARTS, "step", FLOOR)}
        _panel(top, xs, {f"{line} {exponent(xs, ys):.2f}": (xs, ys) for line, ys in seconds.items()})
        _panel(
            bottom,
            xs,
            {"update": (xs, [p.held.peak / MIB for p in points]), LEAST: (xs, [p.held.least / MIB for p in points])},
        )
        top.set_title(name)
    _of_runs(swept, *panels[:, -1])
    panels[0, 0].set_ylabel("seconds")
    panels[1, 0].set_ylabel("MiB")
    figure.savefig(target, dpi=80)
    with Image.open(target) as image:
        image.convert("RGB").quantize(64).save(target, optimize=True)


def _of_runs(swept: Sequence[Sweep], top: Any, bottom: Any) -> None:
    runs = sorted({s.runs for s in swept})
    by_jobs = {f"{jobs} at a time": [s for s in swept if s.jobs == jobs] for jobs in sorted({s.jobs for s in swept})}
    seconds = {name: ([s.runs for s in of], [s.seconds for s in of]) for name, of in by_jobs.items()}
    memory = {name: ([s.runs for s in of], [s.memory / MIB for s in of]) for name, of in by_jobs.items()}
    _panel(top, runs, {**seconds, f"{FLOOR}, one run repeated": (runs, [ideal(swept[0], n, 1) for n in runs])})
    _panel(bottom, runs, memory)
    top.set_title("runs in a study")


def _panel(axes: Any, xs: Sequence[float], lines: dict[str, tuple[Sequence[float], Sequence[float]]]) -> None:
    """One line for each name, what is only compared with in grey."""
    from matplotlib.ticker import LogLocator, NullLocator

    for place, (name, line) in enumerate(lines.items()):
        ink = LIGHT["muted"] if name.startswith((FLOOR, LEAST)) else LIGHT[f"m{place}"]
        axes.plot(*line, color=ink, marker=MARKERS[place], linestyle=DASHES[place], markersize=4, label=name)
    axes.loglog()
    axes.set_xticks(xs, labels=[short(x) for x in xs], fontsize=8)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.grid(color=LIGHT["grid"])
    axes.legend(fontsize=7, framealpha=0.6, edgecolor="none")


def short(x: float) -> str:
    """A number as it stands below an axis."""
    if x < 1000:
        return f"{x:g}"
    return f"{x / 1000:.3g}k" if x < 1e5 else f"{x / 1e6:.2g}M"


def write(
    found: dict[str, list[Point]], held: Sequence[tuple[int, int, Held]], swept: Sequence[Sweep], folder: Path
) -> None:
    """The page and its figure."""
    parts = [HEAD.format(last=LAST, target=TARGET), verdict(found)]
    for name, points in found.items():
        parts += [f"## {name[0].upper()}{name[1:]}", of_axis(name, points)]
    parts += [BATCHES, of_batches(held), STUDIES, of_studies(swept), GPU]
    page = "\n\n".join(part.strip() for part in parts) + "\n"
    (folder / "scaling.md").write_text(page)
    draw(found, swept, folder / "scaling.png")
    say(page)
