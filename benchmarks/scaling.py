"""How seconds and memory grow with group, answers, model, vocabulary and runs, against a floor.

    python -m benchmarks.scaling [--quick] [--write | --only vocabulary ...]

A few minutes on two cores. With --write table and figure go to docs/scaling.md and docs/scaling.png. --quick tries it
with less of everything; its numbers mean little. --only measures one part or several, and prints their tables.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

from alignbench.algorithms.grpo import GRPO
from alignbench.engine.checks import Invariants
from alignbench.kernels.hardware import Hardware
from alignbench.kernels.onednn import use_onednn
from alignbench.models.policy import CausalPolicy
from alignbench.models.tiny import tiny_config, tiny_model, tiny_tokenizer
from benchmarks.against_trl import say
from benchmarks.lower_bound import floors
from benchmarks.scaling_page import Point, Sweep, of_axis, of_batches, of_studies, write
from benchmarks.workload import PARTS, Endless, Held, Load, Step, loop

ROOT, START = Path(__file__).parents[1], perf_counter()
BYTES = 258
"""Of a tokenizer that knows nothing but bytes, padding and end."""
SHORT = (
    "sft.steps=20",
    "rl.steps=5",
    "eval.every=1000",
    "rl.checkpoint_every=0",
    "data.validation_rows=64",
    "data.test_rows=64",
)
"""A run of the embedded model that learns little and is measured little."""
LEAST = (
    "rl.steps=2",
    "rl.rollouts_per_step=16",
    "rl.max_new_tokens=8",
    "data.train_rows=40",
    "data.demonstration_rows=60",
    "eval.perplexity_rows=4",
)
"""And less."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A model and its load."""

    load: Load = Load(groups=4)
    hidden: int = 128
    layers: int = 2
    heads: int = 4
    intermediate: int = 384
    vocabulary: int = 374

    def policy(self) -> CausalPolicy:
        """Random weights of that shape, and the frozen copy they began as."""
        length = self.load.prompt + self.load.answer
        shape = tiny_config(
            self.vocabulary,
            hidden=self.hidden,
            layers=self.layers,
            heads=self.heads,
            intermediate=self.intermediate,
            context=length,
        )
        text = Endless(tokenizer=tiny_tokenizer(["1 + 2"], BYTES), chat=False, context=length)
        policy = CausalPolicy(use_onednn(tiny_model(shape, 0)), text)
        policy.freeze_reference()
        return policy


def axes(quick: bool) -> dict[str, list[tuple[float, Cell]]]:
    """What is varied, and the cells in which it is; the model's axis counts parameters when it has them."""
    base, few, most = Cell(), Load(groups=2), 3 if quick else None
    groups, answers = (2, 4, 8, 16, 32), (16, 32, 64, 128, 256, 512)
    models = [(128, 2, 4, 384), (256, 3, 4, 768), (384, 5, 6, 1152), (512, 9, 8, 1536), (640, 11, 8, 1920)]
    names = ("hidden", "layers", "heads", "intermediate")
    return {
        "K, answers to a prompt": [(k, replace(base, load=replace(base.load, group=k))) for k in groups[:most]],
        "tokens of an answer": [(t, replace(base, load=replace(base.load, answer=t))) for t in answers[:most]],
        "parameters": [(0, replace(base, load=few, **dict(zip(names, m, strict=True)))) for m in models[:most]],
        "vocabulary": [(v, replace(base, vocabulary=v)) for v in (200, 1000, 4000, 16_000, 64_000)[:most]],
    }


def measure(x: float, cell: Cell, patience: float) -> Point:
    """One warm step; then the median of as many as take that many seconds; then one with its tensors counted."""
    policy = cell.policy()
    run = loop(policy, GRPO(group_size=cell.load.group), cell.load, Invariants(weights_moved="off"))
    steps, found = run.steps(), list[Step]()
    next(steps)
    while not found or sum(step.whole for step in found) < patience:
        found.append(next(steps))
    middle = {part: median(step.seconds[part] for step in found) for part in PARTS}
    held = run.held(steps)
    return Point(
        x or sum(p.numel() for p in policy.model.parameters()), middle, floors(policy, cell.load, run.reads), held
    )


def batches(quick: bool) -> Iterator[tuple[int, int, Held]]:
    """What the update of a vocabulary and of a number of answers holds: does it grow with both?"""
    for vocabulary in (1000, 4000) if quick else (4000, 16_000):
        for groups in (8, 16):
            cell = Cell(vocabulary=vocabulary, load=Load(groups=groups, microbatch=16))
            run = loop(cell.policy(), GRPO(), cell.load, Invariants(weights_moved="off"))
            yield vocabulary, cell.load.answers, run.held(run.steps())


def study(runs: int, jobs: int, folder: Path, quick: bool) -> Sweep:
    """A whole study of small runs, as it is typed, its report included; what all of them share is there already."""
    words = [
        "--multirun",
        f"seed={','.join(map(str, range(1, runs + 1)))}",
        f"hydra.launcher.n_jobs={jobs}",
        f"output_dir={folder}",
        f"study=scale_{runs}_{jobs}",
        *SHORT,
        *(LEAST if quick else ()),
    ]
    start, most = perf_counter(), 0
    with open(folder / "log", "w") as log:
        process = subprocess.Popen([sys.executable, "-m", "alignbench", *words], cwd=ROOT, stdout=log, stderr=log)
        while process.poll() is None:
            most = max(most, resident(process.pid))
            sleep(0.2)
    if process.returncode:
        raise SystemExit((folder / "log").read_text())
    return Sweep(runs, jobs, perf_counter() - start, most)


def resident(pid: int) -> int:
    """Bytes that a process and all it started have in memory; a page that several share counts once."""
    home, found = Path(f"/proc/{pid}"), 0
    try:
        lines = (home / "smaps_rollup").read_text().splitlines()
        found = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        children = [child for task in (home / "task").iterdir() for child in (task / "children").read_text().split()]
    except (OSError, StopIteration):  # it has ended meanwhile
        return found
    return found + sum(resident(int(child)) for child in children)


def studies(quick: bool) -> Iterator[Sweep]:
    """The first makes what the others share, and is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        study(1, 3, Path(folder), quick)
        for runs, jobs in [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2)][: 3 if quick else None]:
            yield study(runs, jobs, Path(folder), quick)


def measured(name: str, cells: list[tuple[float, Cell]], quick: bool) -> list[Point]:
    """What was found along one axis."""
    found = list[Point]()
    for x, cell in cells:
        found.append(measure(x, cell, 0.2 if quick else 1.5))
        say(
            f"{name} {found[-1].x:,.0f}: {sum(found[-1].seconds.values()):.3f} s "
            f"({perf_counter() - START:.0f} s so far)"
        )
    return found


def swept(quick: bool) -> list[Sweep]:
    """What was found for studies."""
    found = list[Sweep]()
    for sweep in studies(quick):
        found.append(sweep)
        say(f"{sweep.runs} runs, {sweep.jobs} at a time: {sweep.seconds:.1f} s ({perf_counter() - START:.0f} s so far)")
    return found


def short(name: str) -> str:
    """What an axis is called on the command line: its first word."""
    return name.split()[0].strip(",")


def some(only: list[str], quick: bool) -> Iterator[str]:
    """The tables of these parts."""
    for name, cells in axes(quick).items():
        if short(name) in only:
            yield of_axis(name, measured(name, cells, quick))
    if "batches" in only:
        yield of_batches(list(batches(quick)))
    if "studies" in only:
        yield of_studies(swept(quick))


def main(given: argparse.Namespace) -> None:
    """Measure, print, and write where asked."""
    Hardware(device="cpu", threads=1).prepare()
    if given.only:
        for text in some(given.only, given.quick):
            say(text)
        return
    found = {name: measured(name, cells, given.quick) for name, cells in axes(given.quick).items()}
    held = list(batches(given.quick))
    say(f"vocabulary and batch ({perf_counter() - START:.0f} s so far)")
    write(found, held, swept(given.quick), Path(tempfile.gettempdir()) if not given.write else ROOT / "docs")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less of everything, to try it")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--write", action="store_true", help="to docs")
    asked.add_argument(
        "--only", nargs="+", choices=[*map(short, axes(True)), "batches", "studies"], help="these parts alone, printed"
    )
    main(parser.parse_args())
