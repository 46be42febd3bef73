"""The page on scaling of time and memory: tables, fitted exponents and figure."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from statistics import linear_regression
from typing import Any

from PIL import Image

from analysis.plots.theme import DASHES, LIGHT, MARKERS
from benchmarks.lower_bound import Floor
from benchmarks.page import format_table, print_line
from benchmarks.workload import PARTS, UpdateMemory

MIB = 1 << 20
FITTED_POINTS = 3
"""Points that an exponent is fitted to."""
TARGET = 1.2
FLOOR, MINIMUM = "floor", "minimum"

HEAD = """\
# Scaling

Made by `python -m benchmarks.scaling --write` on a CPU, one thread per process; do not edit. One quantity varies at a
time: K (responses per prompt), response length, model size, vocabulary size, runs in a study. The other quantities are
those of a step of GRPO on the shape of the built-in model: 4 prompts of 32 tokens (2 where the model varies), 8
responses of 32 tokens each, two optimizer steps, microbatches of 32, random weights, responses of full length. An
exponent is the slope of the last {last} points on two logarithmic axes: 1 is proportional.

The floor of a part of a step is a lower bound on its time, the larger of two: its matrix products alone, timed in the
same process with `torch.bmm` or the faster of `torch.mm` and oneDNN; and its bytes (weights, keys and values, optimizer
state) at the speed of copying 256 MiB. The floor processes a prompt once per group and includes no normalization,
softmax, sampling or Python. Bytes of a small model that stay in the cache move faster than the copy.

Memory is the peak of the update, counted by tensor: weights, optimizer (two moments and the gradient) and all
temporary tensors. The minimum is weights, optimizer and the activations of one microbatch; the target is a peak of at
most {target} times the minimum. Logits are in the peak, not in the minimum. The frozen reference is in neither.

![Seconds of a step and memory of its update by K, length, model, vocabulary and runs](scaling.png)
"""
BATCHES = """\
## Vocabulary size and batch size

Memory of the update without weights and optimizer, MiB, with microbatches of 16. It should grow neither with the
number of responses in a step nor with the vocabulary; for larger vocabularies torch allocates the gradient of the whole
embedding.
"""
STUDIES = """\
## Runs in a study

Whole studies from the command line, with start-up, evaluation and report: `n_jobs` runs in parallel on two cores.
Memory is the peak of all processes together, shared pages counted once. The floor is the study of one run, times the
number of runs divided by the jobs; a ratio below 1 is possible because start-up and report are paid once.
"""
GPU = """\
## On a GPU

`python -m benchmarks.gpu` makes the same comparison on a CUDA machine with the shapes of Qwen2.5-0.5B, Gemma-2B and
Qwen2.5-3B. It has not been run on a GPU yet.
"""


@dataclass(frozen=True)
class Point:
    """The measurements of one setting."""

    x: float
    seconds: dict[str, float]
    """Median of each part of the step."""
    floor: dict[str, Floor]
    memory: UpdateMemory


@dataclass(frozen=True)
class StudyCost:
    """The measurements of one study."""

    runs: int
    jobs: int
    seconds: float
    memory: int
    """Peak bytes of all processes, shared pages counted once."""


def exponent(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The slope of log y over log x at the last points."""
    log_x, log_y = ([math.log(value) for value in values[-FITTED_POINTS:]] for values in (xs, ys))
    return linear_regression(log_x, log_y).slope


def _seconds(part: str) -> Callable[[Point], float]:
    return lambda point: point.seconds[part]


COLUMNS: dict[str, Callable[[Point], float]] = {
    **{part: _seconds(part) for part in PARTS},
    "step": lambda p: sum(p.seconds.values()),
    "matmul": lambda p: sum(floor.matmul for floor in p.floor.values()),
    "bandwidth": lambda p: sum(floor.bandwidth for floor in p.floor.values()),
    "floor": lambda p: sum(floor.seconds for floor in p.floor.values()),
    "MiB": lambda p: p.memory.peak / MIB,
}
"""Columns that an exponent is fitted to; all but the last are seconds."""


def axis_table(name: str, points: Sequence[Point]) -> str:
    """The table of one varied quantity, with the exponents in the last row."""
    head = [name, *COLUMNS, "step / floor", "peak / minimum"]
    rows = []
    for p in points:
        values = [read(p) for read in COLUMNS.values()]
        cells = [f"{value:.3f}" for value in values[:-1]] + [f"{values[-1]:,.1f}"]
        rows.append([f"{p.x:,.0f}", *cells, *_ratios(p)])
    fitted = [f"**{exponent([p.x for p in points], list(map(read, points))):.2f}**" for read in COLUMNS.values()]
    return format_table(head, [*rows, ["**exponent**", *fitted, "", ""]])


def _ratios(p: Point) -> list[str]:
    return [f"{COLUMNS['step'](p) / COLUMNS['floor'](p):.1f}", f"{p.memory.peak / p.memory.minimum:.2f}"]


def batches_table(results: Sequence[tuple[int, int, UpdateMemory]]) -> str:
    """Memory by vocabulary size (rows) and number of responses (columns)."""
    responses = sorted({count for _, count, _ in results})
    rows = []
    for vocabulary in sorted({v for v, _, _ in results}):
        memory = {count: m for v, count, m in results if v == vocabulary}
        cells = [(memory[n].peak - memory[n].weights - memory[n].optimizer) / MIB for n in responses]
        cells.append(memory[responses[0]].activations / MIB)
        rows.append([f"{vocabulary:,}", *(f"{cell:,.1f}" for cell in cells)])
    return format_table(["vocabulary", *(f"{n} responses" for n in responses), "of which activations"], rows)


def studies_table(studies: Sequence[StudyCost]) -> str:
    """One row for each number of runs, and the exponents; the first study has one run."""
    by_jobs = {jobs: [s for s in studies if s.jobs == jobs] for jobs in sorted({s.jobs for s in studies})}
    head = ["runs", *(f"n_jobs={j}, {what}" for j in by_jobs for what in ("s", "s / floor", "MiB"))]
    rows = []
    for runs in sorted({s.runs for s in studies}):
        row = [next((s for s in same if s.runs == runs), None) for same in by_jobs.values()]
        rows.append([str(runs), *(cell for study in row for cell in _study_cells(studies[0], study))])
    slopes = [(_slope(same, "seconds"), "", _slope(same, "memory")) for same in by_jobs.values()]
    return format_table(head, [*rows, ["**exponent**", *(cell for cells in slopes for cell in cells)]])


def _study_cells(one: StudyCost, study: StudyCost | None) -> tuple[str, str, str]:
    if study is None:
        return "", "", ""
    return (
        f"{study.seconds:.1f}",
        f"{study.seconds / ideal_seconds(one, study.runs, study.jobs):.2f}",
        f"{study.memory / MIB:,.0f}",
    )


def _slope(studies: Sequence[StudyCost], field: str) -> str:
    if len(studies) < 2:
        return ""
    return f"**{exponent([s.runs for s in studies], list(map(attrgetter(field), studies))):.2f}**"


def ideal_seconds(one: StudyCost, runs: int, jobs: int) -> float:
    """Seconds if each run took as long as alone, and jobs ran in parallel at no cost."""
    return one.seconds * math.ceil(runs / jobs)


def memory_summary(results: Mapping[str, Sequence[Point]]) -> str:
    """How many settings meet the memory target, and the largest ratio."""
    ratios = {
        f"{name} {p.x:,.0f}": p.memory.peak / p.memory.minimum for name, points in results.items() for p in points
    }
    met, worst = sum(ratio <= TARGET for ratio in ratios.values()), max(ratios, key=ratios.__getitem__)
    largest = f"{ratios[worst]:.2f} ({worst})"
    return f"**{met} of {len(ratios)}** settings meet the memory target; the largest ratio is {largest}."


def draw_figure(results: Mapping[str, Sequence[Point]], studies: Sequence[StudyCost], target: Path) -> None:
    """Seconds above, memory below, one column for each varied quantity, on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.2), layout="constrained")
    panels: Any = figure.subplots(2, len(results) + 1)
    for (name, points), (top, bottom) in zip(results.items(), panels.T, strict=False):
        xs = [p.x for p in points]
        seconds = {line: [COLUMNS[line](p) for p in points] for line in (*PARTS, "step", FLOOR)}
        _panel(top, xs, {f"{line} {exponent(xs, ys):.2f}": (xs, ys) for line, ys in seconds.items()})
        _panel(
            bottom,
            xs,
            {
                "update": (xs, [p.memory.peak / MIB for p in points]),
                MINIMUM: (xs, [p.memory.minimum / MIB for p in points]),
            },
        )
        top.set_title(name)
    _draw_studies(studies, *panels[:, -1])
    panels[0, 0].set_ylabel("seconds")
    panels[1, 0].set_ylabel("MiB")
    figure.savefig(target, dpi=80)
    with Image.open(target) as image:
        image.convert("RGB").quantize(64).save(target, optimize=True)


def _draw_studies(studies: Sequence[StudyCost], top: Any, bottom: Any) -> None:
    runs = sorted({s.runs for s in studies})
    by_jobs = {f"n_jobs={jobs}": [s for s in studies if s.jobs == jobs] for jobs in sorted({s.jobs for s in studies})}
    seconds = {name: ([s.runs for s in same], [s.seconds for s in same]) for name, same in by_jobs.items()}
    memory = {name: ([s.runs for s in same], [s.memory / MIB for s in same]) for name, same in by_jobs.items()}
    _panel(
        top, runs, {**seconds, f"{FLOOR}, one run repeated": (runs, [ideal_seconds(studies[0], n, 1) for n in runs])}
    )
    _panel(bottom, runs, memory)
    top.set_title("runs in a study")


def _panel(axes: Any, xs: Sequence[float], lines: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
    """Draw one line for each name; lower bounds are grey."""
    from matplotlib.ticker import LogLocator, NullLocator

    for place, (name, line) in enumerate(lines.items()):
        color = LIGHT["muted"] if name.startswith((FLOOR, MINIMUM)) else LIGHT[f"m{place}"]
        axes.plot(*line, color=color, marker=MARKERS[place], linestyle=DASHES[place], markersize=4, label=name)
    axes.loglog()
    axes.set_xticks(xs, labels=[format_tick(x) for x in xs], fontsize=8)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.grid(color=LIGHT["grid"])
    axes.legend(fontsize=7, framealpha=0.6, edgecolor="none")


def format_tick(x: float) -> str:
    """A tick label, such as 16k or 31M."""
    if x < 1000:
        return f"{x:g}"
    return f"{x / 1000:.3g}k" if x < 1e5 else f"{x / 1e6:.2g}M"


def write(
    results: Mapping[str, Sequence[Point]],
    batches: Sequence[tuple[int, int, UpdateMemory]],
    studies: Sequence[StudyCost],
    folder: Path,
) -> None:
    """Write scaling.md and scaling.png into `folder`, and print the page."""
    parts = [HEAD.format(last=FITTED_POINTS, target=TARGET), memory_summary(results)]
    for name, points in results.items():
        parts += [f"## {name[0].upper()}{name[1:]}", axis_table(name, points)]
    parts += [BATCHES, batches_table(batches), STUDIES, studies_table(studies), GPU]
    page = "\n\n".join(part.strip() for part in parts) + "\n"
    (folder / "scaling.md").write_text(page)
    draw_figure(results, studies, folder / "scaling.png")
    print_line(page)
