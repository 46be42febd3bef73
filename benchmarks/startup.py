"""How long a run takes to its first step, what its records cost, and how soon a mistake is told; part by part.

    python -m benchmarks.startup [--rounds 5] [--write]

With --write the figures go to docs/startup.md. What Python compiles is kept in a folder of this benchmark's own.
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

from benchmarks.against_trl import ROOT, filled, say, spread, table
from benchmarks.startup_clock import BEGAN, HEAVY

METHODS = ("grpo", "ppo")
TARGET_SECONDS, TARGET_SHARE = 6.0, 0.03
ANSWERED = {
    "`--help`": (["--help"], 0),
    "a group's option that there is not, `algo=ppoo`": (["algo=ppoo"], 1),
    "a key that there is not, `rl.stepz=3`": (["rl.stepz=3"], 1),
    "a value out of range, `rl.steps=-1`": (["rl.steps=-1"], 2),
    "groups that do not fit, `rl.minibatches=3`": (["rl.minibatches=3"], 2),
    "no such model, `model.path=/nowhere`": (["model.path=/nowhere"], 2),
    "no such data, `data=gsm8k data.path=/nowhere`": (["data=gsm8k", "data.path=/nowhere"], 2),
}
"""What is typed, and the exit code it ends with."""

WALL, BUSY = 1, 2
"""Where a mark has the seconds on the wall, and those of the processor."""
Told = dict[str, Any]
"""What benchmarks.startup_clock writes, and `whole`, the seconds of the process."""


@dataclass(frozen=True)
class Place:
    """Where the runs are made: a folder that has the SFT model, and what is compiled."""

    folder: Path

    def environment(self, compiled: str = "compiled") -> dict[str, str]:
        """Python keeps what it compiles, whatever the shell says."""
        keep = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(self.folder / compiled)}
        return {**os.environ, **keep, "HF_HUB_OFFLINE": "1"}

    def run(self, *words: str, compiled: str = "compiled") -> Told:
        """A run that has never been made, with the clock in it."""
        shutil.rmtree(self.folder / "runs", ignore_errors=True)
        file = self.folder / "clock.json"
        command = [sys.executable, "-m", "benchmarks.startup_clock", str(file), *words, f"output_dir={self.folder}"]
        began = time.monotonic()
        subprocess.run(
            command,
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
            env=self.environment(compiled) | {BEGAN: str(began)},
        )
        return {**json.loads(file.read_text()), "whole": time.monotonic() - began}

    def answered(self, words: Sequence[str], code: int) -> float:
        """Seconds until a command that trains nothing has said why."""
        began = time.monotonic()
        done = self._typed(words)
        assert done.returncode == code, f"{words}: {done.stdout}{done.stderr}"
        return time.monotonic() - began

    def imported(self, words: Sequence[str]) -> list[str]:
        """The heavy modules that a command imports."""
        said = self._typed(words, "-X", "importtime").stderr
        found = set(re.findall(r"^import time:.*\| +([\w]+)$", said, flags=re.MULTILINE))
        return [name for name in HEAVY if name in found]

    def _typed(self, words: Sequence[str], *flags: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, *flags, "-m", "alignbench", *words, f"output_dir={self.folder}"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=self.environment(), check=False)


def of_starts(runs: Sequence[Told], first: Told) -> str:
    """Seconds of each part of the start and what it imports; those of the first time in a column of its own."""
    rows = []
    for i, (part, _, _, modules) in enumerate(runs[0]["marks"]):
        took = [spread(_took(run, i, clock) for run in runs) for clock in (WALL, BUSY)]
        rows.append([part, *took, f"{_took(first, i, WALL):.2f}", ", ".join(modules)])
    ends = [spread(run["marks"][-1][clock] for run in runs) for clock in (WALL, BUSY)]
    ends.append(f"{first['marks'][-1][WALL]:.2f}")
    rows.append(["**until the first step**", *(f"**{end}**" for end in ends), ""])
    return table(["part", "seconds", "of the processor", "the first time", "imports"], rows)


def _took(run: Told, i: int, clock: int) -> float:
    return run["marks"][i][clock] - (run["marks"][i - 1][clock] if i else 0.0)


def of_records(runs: Mapping[str, Sequence[Told]], without: Mapping[str, Sequence[Told]]) -> str:
    """Seconds of each kind of record in a whole run, their share, and the ratio to the same run without MLflow."""
    kinds = list(dict.fromkeys(kind for told in runs.values() for run in told for kind in run["records"]))
    rows = [
        [kind, *(spread((run["records"].get(kind, 0.0) for run in told), "{:.3f}") for told in runs.values())]
        for kind in kinds
    ]
    rows.append(["**all records**", *(f"**{spread(map(recorded, told), '{:.3f}')}**" for told in runs.values())])
    rows.append(["the whole run", *(spread((run["whole"] for run in told), "{:.1f}") for told in runs.values())])
    rows.append(["**share of the run**", *(f"**{spread(map(share, told), '{:.1%}')}**" for told in runs.values())])
    rows.append(
        [
            "times the same run without MLflow",
            *(
                spread(a["whole"] / b["whole"] for a, b in zip(told, without[name], strict=True))
                for name, told in runs.items()
            ),
        ]
    )
    rows.append(
        [
            "CPU seconds of the process that logs to MLflow",
            *(spread((run["follower"] for run in told), "{:.1f}") for told in runs.values()),
        ]
    )
    return table(["seconds", *runs], rows)


def recorded(run: Told) -> float:
    """Seconds that a run spent on its records."""
    return sum(run["records"].values())


def share(run: Told) -> float:
    """Of the whole run."""
    return recorded(run) / run["whole"]


def of_answers(place: Place, rounds: int) -> str:
    """How soon each mistake is told, and what is imported for it."""
    rows = []
    for what, (words, code) in ANSWERED.items():
        took = [place.answered(words, code) for _ in range(rounds)]
        rows.append([what, spread(took), ", ".join(place.imported(words)) or "none"])
        say(f"{what}: {rows[-1][1]} s, heavy modules: {rows[-1][2]}")
    return table(["typed", "seconds until it is told", "heavy modules"], rows)


HEAD = """\
# How soon it begins

Made by `python -m benchmarks.startup --write`; do not edit. Every figure is of processes started one after the other on
one machine, {rounds} of each: the median, and in brackets the lowest and highest; torch {torch}, transformers
{transformers}, MLflow {mlflow}, on a CPU. The SFT model was there already. Seconds differ from machine to machine.
"""
STARTS = """\
## From the command to the first step

`python -m alignbench algo=grpo rl.steps=1` on the embedded model: **{seconds:.1f} s**, of at most {target:g}, of
which the processor worked {busy:.1f}: the rest is waiting, for a processor that others use too. The first time is the
first after an installation, when Python compiles all that it imports. With PYTHONDONTWRITEBYTECODE=1 in the
environment each time is the first one; `make` takes it out.

The garbage collector rests until everything is imported, and what is there by then it never searches.
"""
RECORDS = """\
## What the records cost

Whole runs of {steps} with the default settings. A record is everything that a run writes down: numbers, checkpoints,
pictures, tables, answers, the final model. It is timed where it is called, in the process that trains; its share is to
be below {target:.0%}: **{shares}**. A separate process imports MLflow and logs to it while the run trains;
each run is followed by the same with `tracking.enabled=false`, and the ratio of the two is taken of whole processes,
round by round.
"""
ANSWERS = """\
## How soon a mistake is told

Seconds until the process has ended, with one message. Nothing heavy is imported but what is named; what a run imports
is in the first table. matplotlib, statsmodels and datasets are imported by no run on the embedded task: the first two
are the report's, the last is for data of the hub. Tests keep it so (`tests/benchmarks/test_startup.py`).
"""


def main(given: argparse.Namespace) -> None:
    """Measure, print, and write where asked."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Place(Path(temporary))
        place.run("algo=grpo", "rl.steps=0")
        first = place.run("algo=grpo", "rl.steps=1", compiled="compiled_anew")
        starts = [place.run("algo=grpo", "rl.steps=1") for _ in range(given.rounds)]
        parts = [of_starts(starts, first)]
        say(parts[0])
        told: dict[str, dict[str, list[Told]]] = {"true": {}, "false": {}}
        for _ in range(given.rounds):
            for method in METHODS:
                for enabled, found in told.items():
                    found.setdefault(method, []).append(place.run(f"algo={method}", f"tracking.enabled={enabled}"))
        parts.append(of_records(told["true"], told["false"]))
        say(parts[1])
        parts.append(of_answers(place, given.rounds))
    versions = {name: version(name) for name in ("torch", "transformers", "mlflow")}
    wall, busy = (median(run["marks"][-1][clock] for run in starts) for clock in (WALL, BUSY))
    shares = ", ".join(f"{name} {median(map(share, runs)):.1%}" for name, runs in told["true"].items())
    chapters = [
        filled(HEAD.format(rounds=given.rounds, **versions)),
        filled(STARTS.format(seconds=wall, busy=busy, target=TARGET_SECONDS)),
        parts[0],
        filled(RECORDS.format(steps=" and ".join(METHODS), target=TARGET_SHARE, shares=shares)),
        parts[1],
        filled(ANSWERS),
        parts[2],
    ]
    if given.write:
        (ROOT / "docs" / "startup.md").write_text("\n\n".join(chapters) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    main(parser.parse_args())
