"""How time and memory scale with group size, response length, model, vocabulary and runs, against lower bounds.

    python -m benchmarks.scaling [--quick] [--write | --only vocabulary ...]

A few minutes on two cores. --write writes docs/scaling.md and docs/scaling.png. --quick is a short trial whose numbers
mean little. --only measures the named parts and prints their tables.
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
from benchmarks.lower_bound import floors
from benchmarks.page import print_line
from benchmarks.scaling_page import Point, StudyCost, axis_table, batches_table, studies_table, write
from benchmarks.workload import (
    PARTS,
    EndlessText,
    Load,
    StepTiming,
    UpdateMemory,
    build_policy,
    build_timed_loop,
)

ROOT, START = Path(__file__).parents[1], perf_counter()
BYTES = 258
"""Vocabulary size of a tokenizer of bytes, padding and end token."""
SHORT = (
    "sft.steps=20",
    "rl.steps=5",
    "eval.every=1000",
    "rl.checkpoint_every=0",
    "data.validation_rows=64",
    "data.test_rows=64",
)
"""A short run of the built-in model."""
SHORTEST = (
    "rl.steps=2",
    "rl.rollouts_per_step=16",
    "rl.max_new_tokens=8",
    "data.train_rows=40",
    "data.demonstration_rows=60",
    "eval.perplexity_rows=4",
)
"""Added with --quick."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A model size and the load of a step."""

    load: Load = Load(prompts=4)
    hidden: int = 128
    layers: int = 2
    heads: int = 4
    intermediate: int = 384
    vocabulary: int = 374

    def policy(self) -> CausalPolicy:
        """A model of this size with random weights, and its frozen reference."""
        length = self.load.prompt_tokens + self.load.response_tokens
        config = tiny_config(
            self.vocabulary,
            hidden=self.hidden,
            layers=self.layers,
            heads=self.heads,
            intermediate=self.intermediate,
            context=length,
        )
        text = EndlessText(tokenizer=tiny_tokenizer(["1 + 2"], BYTES), chat=False, context=length)
        return build_policy(use_onednn(tiny_model(config, 0)), text)


def axes(quick: bool) -> dict[str, list[tuple[float, Cell]]]:
    """The varied quantities and their cells; x is 0 where it is the number of parameters, which is counted later."""
    base, few, most = Cell(), Load(prompts=2), 3 if quick else None
    groups, tokens = (2, 4, 8, 16, 32), (16, 32, 64, 128, 256, 512)
    models = [(128, 2, 4, 384), (256, 3, 4, 768), (384, 5, 6, 1152), (512, 9, 8, 1536), (640, 11, 8, 1920)]
    return {
        "K, responses per prompt": [(k, replace(base, load=replace(base.load, group_size=k))) for k in groups[:most]],
        "tokens of a response": [(t, replace(base, load=replace(base.load, response_tokens=t))) for t in tokens[:most]],
        "parameters": [
            (0, Cell(load=few, hidden=hidden, layers=layers, heads=heads, intermediate=intermediate))
            for hidden, layers, heads, intermediate in models[:most]
        ],
        "vocabulary": [(v, replace(base, vocabulary=v)) for v in (200, 1000, 4000, 16_000, 64_000)[:most]],
    }


def measure(x: float, cell: Cell, min_seconds: float) -> Point:
    """The median step after a warm-up step, of as many as fill `min_seconds`; then the memory of one more update."""
    policy = cell.policy()
    run = build_timed_loop(policy, GRPO(group_size=cell.load.group_size), cell.load, Invariants(weights_moved="off"))
    steps, timings = run.steps(), list[StepTiming]()
    next(steps)
    while not timings or sum(step.total for step in timings) < min_seconds:
        timings.append(next(steps))
    medians = {part: median(step.seconds[part] for step in timings) for part in PARTS}
    memory = run.update_memory(steps)
    parameters = sum(p.numel() for p in policy.model.parameters())
    return Point(x or parameters, medians, floors(policy, cell.load, run.scoring_passes), memory)


def measure_batches(quick: bool) -> Iterator[tuple[int, int, UpdateMemory]]:
    """Memory of the update for each vocabulary size and number of responses."""
    for vocabulary in (1000, 4000) if quick else (4000, 16_000):
        for prompts in (8, 16):
            cell = Cell(vocabulary=vocabulary, load=Load(prompts=prompts, microbatch=16))
            run = build_timed_loop(cell.policy(), GRPO(), cell.load, Invariants(weights_moved="off"))
            yield vocabulary, cell.load.responses, run.update_memory(run.steps())


def measure_study(runs: int, jobs: int, folder: Path, quick: bool) -> StudyCost:
    """Run a study of small runs from the command line, report included; its shared SFT model exists already."""
    overrides = [
        "--multirun",
        f"seed={','.join(map(str, range(1, runs + 1)))}",
        f"hydra.launcher.n_jobs={jobs}",
        f"output_dir={folder}",
        f"study=scale_{runs}_{jobs}",
        *SHORT,
        *(SHORTEST if quick else ()),
    ]
    start, peak = perf_counter(), 0
    with open(folder / "log", "w") as log:
        process = subprocess.Popen([sys.executable, "-m", "alignbench", *overrides], cwd=ROOT, stdout=log, stderr=log)
        while process.poll() is None:
            peak = max(peak, tree_memory(process.pid))
            sleep(0.2)
    if process.returncode:
        raise SystemExit((folder / "log").read_text())
    return StudyCost(runs, jobs, perf_counter() - start, peak)


def tree_memory(pid: int) -> int:
    """Resident bytes of a process and its descendants, shared pages counted once."""
    home, own = Path(f"/proc/{pid}"), 0
    try:
        lines = (home / "smaps_rollup").read_text().splitlines()
        own = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        children = [child for task in (home / "task").iterdir() for child in (task / "children").read_text().split()]
    except (OSError, StopIteration):  # the process has ended
        return own
    return own + sum(tree_memory(int(child)) for child in children)


def measure_studies(quick: bool) -> list[StudyCost]:
    """Measure all studies; an uncounted first one trains the SFT model that the others share."""
    results = list[StudyCost]()
    with tempfile.TemporaryDirectory() as folder:
        measure_study(1, 3, Path(folder), quick)
        for runs, jobs in [(1, 1), (2, 1), (2, 2), (4, 1), (4, 2)][: 3 if quick else None]:
            results.append(measure_study(runs, jobs, Path(folder), quick))
            print_line(f"{runs} runs, n_jobs={jobs}: {results[-1].seconds:.1f} s ({_elapsed()})")
    return results


def measure_axis(name: str, cells: list[tuple[float, Cell]], quick: bool) -> list[Point]:
    """Measure all cells of one varied quantity."""
    results = list[Point]()
    for x, cell in cells:
        results.append(measure(x, cell, 0.2 if quick else 1.5))
        print_line(f"{name} {results[-1].x:,.0f}: {sum(results[-1].seconds.values()):.3f} s ({_elapsed()})")
    return results


def _elapsed() -> str:
    return f"{perf_counter() - START:.0f} s elapsed"


def option_name(axis: str) -> str:
    """The name of a varied quantity on the command line: its first word."""
    return axis.split()[0].strip(",")


def measure_axes(only: list[str], quick: bool) -> Iterator[str]:
    """Measure the parts named in `only`; yields their tables."""
    for name, cells in axes(quick).items():
        if option_name(name) in only:
            yield axis_table(name, measure_axis(name, cells, quick))
    if "batches" in only:
        yield batches_table(list(measure_batches(quick)))
    if "studies" in only:
        yield studies_table(measure_studies(quick))


def main(args: argparse.Namespace) -> None:
    """Measure, print, and write the page with --write."""
    Hardware(device="cpu", threads=1).prepare()
    if args.only:
        for text in measure_axes(args.only, args.quick):
            print_line(text)
        return
    results = {name: measure_axis(name, cells, args.quick) for name, cells in axes(args.quick).items()}
    batches = list(measure_batches(args.quick))
    print_line(f"vocabulary size and batch size ({_elapsed()})")
    folder = ROOT / "docs" if args.write else Path(tempfile.gettempdir())
    write(results, batches, measure_studies(args.quick), folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a short trial; its numbers mean little")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--write", action="store_true", help="write docs/scaling.md and docs/scaling.png")
    output.add_argument(
        "--only",
        nargs="+",
        choices=[*map(option_name, axes(True)), "batches", "studies"],
        help="measure only these parts and print their tables",
    )
    main(parser.parse_args())
