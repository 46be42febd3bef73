"""Time to the first step of a run by part, cost of logging, and time until an error is reported.

    python -m benchmarks.startup [--rounds 5] [--write]

--write writes docs/startup.md. Compiled Python files are kept in a temporary folder.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.page import format_spread, format_table, print_line, wrap_paragraphs
from benchmarks.startup_clock import HEAVY, STARTED

ROOT = Path(__file__).parents[1]
METHODS = ("grpo", "ppo")
TARGET_SECONDS, TARGET_SHARE = 6.0, 0.03
COMMANDS: dict[str, tuple[list[str], int]] = {
    "`--help`": (["--help"], 0),
    "unknown option, `algo=ppoo`": (["algo=ppoo"], 2),
    "unknown key, `rl.stepz=3`": (["rl.stepz=3"], 2),
    "value out of range, `rl.steps=-1`": (["rl.steps=-1"], 2),
    "indivisible groups, `rl.minibatches=3`": (["rl.minibatches=3"], 2),
    "missing model, `model.path=/nowhere`": (["model.path=/nowhere"], 2),
    "missing data, `data=gsm8k data.path=/nowhere`": (["data=gsm8k", "data.path=/nowhere"], 2),
}
"""Arguments and exit code of commands that train nothing."""

WALL, CPU = 1, 2
"""Index of wall time and of CPU time in a mark."""
Timing = dict[str, Any]
"""What benchmarks.startup_clock writes, and `whole`, the seconds of the process."""


@dataclass(frozen=True)
class Workspace:
    """A folder with the runs, the SFT model and the compiled Python files."""

    folder: Path

    def environment(self, compiled: str = "compiled") -> dict[str, str]:
        """Environment variables with which Python writes and reads compiled files in this folder."""
        keep = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(self.folder / compiled)}
        return {**os.environ, **keep, "HF_HUB_OFFLINE": "1"}

    def time_run(self, *overrides: str, compiled: str = "compiled") -> Timing:
        """Time a new run."""
        shutil.rmtree(self.folder / "runs", ignore_errors=True)
        file = self.folder / "clock.json"
        command = [sys.executable, "-m", "benchmarks.startup_clock", str(file), *overrides, f"output_dir={self.folder}"]
        start = time.monotonic()
        subprocess.run(
            command,
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
            env=self.environment(compiled) | {STARTED: str(start)},
        )
        return {**json.loads(file.read_text()), "whole": time.monotonic() - start}

    def time_command(self, arguments: Sequence[str], code: int) -> float:
        """Seconds of a command that trains nothing; it must exit with `code`."""
        start = time.monotonic()
        done = self._run(arguments)
        assert done.returncode == code, f"{arguments}: {done.stdout}{done.stderr}"
        return time.monotonic() - start

    def heavy_imports(self, arguments: Sequence[str]) -> list[str]:
        """The heavy modules that a command imports."""
        log = self._run(arguments, "-X", "importtime").stderr
        modules = set(re.findall(r"^import time:.*\| +([\w]+)$", log, flags=re.MULTILINE))
        return [name for name in HEAVY if name in modules]

    def _run(self, arguments: Sequence[str], *flags: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, *flags, "-m", "alignbench", *arguments, f"output_dir={self.folder}"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=self.environment(), check=False)


def start_table(runs: Sequence[Timing], first: Timing) -> str:
    """Seconds and imports of each part of the start; `first` is the first run after an installation."""
    rows = []
    for i, (part, _, _, modules) in enumerate(runs[0]["marks"]):
        spreads = [format_spread(_part_seconds(run, i, clock) for run in runs) for clock in (WALL, CPU)]
        rows.append([part, *spreads, f"{_part_seconds(first, i, WALL):.2f}", ", ".join(modules)])
    totals = [format_spread(run["marks"][-1][clock] for run in runs) for clock in (WALL, CPU)]
    totals.append(f"{first['marks'][-1][WALL]:.2f}")
    rows.append(["**until the first step**", *(f"**{total}**" for total in totals), ""])
    return format_table(["part", "seconds", "CPU seconds", "first run, seconds", "imports"], rows)


def _part_seconds(run: Timing, i: int, clock: int) -> float:
    marks: list[list[Any]] = run["marks"]
    seconds: float = marks[i][clock] - (marks[i - 1][clock] if i else 0.0)
    return seconds


def logging_table(runs: Mapping[str, Sequence[Timing]], without: Mapping[str, Sequence[Timing]]) -> str:
    """Seconds of each kind of record of whole runs, their share, and the ratio to the same runs without MLflow."""
    kinds = list(dict.fromkeys(kind for same in runs.values() for run in same for kind in run["records"]))
    rows = [
        [kind, *(format_spread((run["records"].get(kind, 0.0) for run in same), "{:.3f}") for same in runs.values())]
        for kind in kinds
    ]

    def add(name: str, form: str, values: Mapping[str, Sequence[float]], bold: bool = False) -> None:
        mark = "**" if bold else ""
        rows.append([f"{mark}{name}{mark}", *(f"{mark}{format_spread(v, form)}{mark}" for v in values.values())])

    totals = {name: list(map(logging_seconds, same)) for name, same in runs.items()}
    add("all records", "{:.3f}", totals, bold=True)
    add("whole run", "{:.1f}", {name: [run["whole"] for run in same] for name, same in runs.items()})
    shares = {name: list(map(logging_share, same)) for name, same in runs.items()}
    add("share of the run", "{:.1%}", shares, bold=True)
    ratios = {
        name: [a["whole"] / b["whole"] for a, b in zip(same, without[name], strict=True)] for name, same in runs.items()
    }
    add("ratio to the same run without MLflow", "{:.2f}", ratios)
    follower = {name: [run["follower"] for run in same] for name, same in runs.items()}
    add("CPU seconds of the process that logs to MLflow", "{:.1f}", follower)
    return format_table(["seconds", *runs], rows)


def logging_seconds(run: Timing) -> float:
    """Seconds of all records of a run."""
    records: dict[str, float] = run["records"]
    return sum(records.values())


def logging_share(run: Timing) -> float:
    """Seconds of all records divided by the seconds of the run."""
    whole: float = run["whole"]
    return logging_seconds(run) / whole


def command_table(workspace: Workspace, rounds: int) -> str:
    """Seconds and heavy imports of `--help` and of commands with an error."""
    rows = []
    for name, (arguments, code) in COMMANDS.items():
        seconds = [workspace.time_command(arguments, code) for _ in range(rounds)]
        rows.append([name, format_spread(seconds), ", ".join(workspace.heavy_imports(arguments)) or "none"])
        print_line(f"{name}: {rows[-1][1]} s, heavy modules: {rows[-1][2]}")
    return format_table(["command", "seconds", "heavy modules"], rows)


HEAD = """\
# Start-up and logging

Made by `python -m benchmarks.startup --write`; do not edit. All processes ran one after another on one machine,
{rounds} of each kind; cells are medians, with minimum and maximum in brackets; torch {torch}, transformers
{transformers}, MLflow {mlflow}, on a CPU. The SFT model existed already. Seconds depend on the machine.
"""
STARTS = """\
## Time to the first step

`python -m alignbench algo=grpo rl.steps=1` on the built-in model: **{seconds:.1f} s** (target: at most {target:g}),
with {cpu:.1f} CPU seconds. "First run" is the first run after an installation, in which Python compiles all modules.
With PYTHONDONTWRITEBYTECODE=1 in the environment every run is a first run; `make` unsets it.

Garbage collection is disabled until all modules are imported; the objects that exist by then are never searched.
"""
LOGGING = """\
## Cost of logging

Whole runs of {methods} with default settings. Records are everything that a run writes: metrics, checkpoints, plots,
tables, responses, the final model. They are timed in the training process; their share should be below {target:.0%}:
**{shares}**. A separate process imports MLflow and logs to it during training. Each run is followed by the same run
with `tracking.enabled=false`; the ratio of whole processes is taken within each round.
"""
ERRORS = """\
## Time until an error is reported

Seconds until the process has ended with its message. Only the listed heavy modules are imported; the first table lists
the imports of a run. No run on the built-in task imports matplotlib, statsmodels or datasets: the first two are for the
report, the last is for data of the hub. Tests check this (`tests/benchmarks/test_startup.py`).
"""


def main(args: argparse.Namespace) -> None:
    """Measure, print, and write the page with --write."""
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Workspace(Path(temporary))
        workspace.time_run("algo=grpo", "rl.steps=0")
        first = workspace.time_run("algo=grpo", "rl.steps=1", compiled="compiled_first")
        starts = [workspace.time_run("algo=grpo", "rl.steps=1") for _ in range(args.rounds)]
        tables = [start_table(starts, first)]
        print_line(tables[0])
        runs: dict[str, dict[str, list[Timing]]] = {"true": {}, "false": {}}
        for _ in range(args.rounds):
            for method in METHODS:
                for enabled, timings in runs.items():
                    timing = workspace.time_run(f"algo={method}", f"tracking.enabled={enabled}")
                    timings.setdefault(method, []).append(timing)
        tables.append(logging_table(runs["true"], runs["false"]))
        print_line(tables[1])
        tables.append(command_table(workspace, args.rounds))
    versions = {name: version(name) for name in ("torch", "transformers", "mlflow")}
    wall, cpu = (median(run["marks"][-1][clock] for run in starts) for clock in (WALL, CPU))
    shares = ", ".join(f"{name} {median(map(logging_share, same)):.1%}" for name, same in runs["true"].items())
    sections = [
        wrap_paragraphs(HEAD.format(rounds=args.rounds, **versions)),
        wrap_paragraphs(STARTS.format(seconds=wall, cpu=cpu, target=TARGET_SECONDS)),
        tables[0],
        wrap_paragraphs(LOGGING.format(methods=" and ".join(METHODS), target=TARGET_SHARE, shares=shares)),
        tables[1],
        wrap_paragraphs(ERRORS),
        tables[2],
    ]
    if args.write:
        (ROOT / "docs" / "startup.md").write_text("\n\n".join(sections) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="processes of each kind")
    parser.add_argument("--write", action="store_true", help="write docs/startup.md")
    main(parser.parse_args())
