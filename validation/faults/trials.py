"""Small real runs that are stopped, typed again, and compared with one that was left in peace."""

import json
import logging
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path

from validation.faults.end_state import State, differences, end_state
from validation.faults.kill_points import History, Moment, Place

ROOT = Path(__file__).parents[2]
SEED = 20261121
NOTHING = "nothing"
SMALL = (
    "preset=preference_toy",
    "hardware=cpu",
    "model.hidden=32",
    "model.layers=1",
    "model.heads=2",
    "model.intermediate=48",
    "data.demonstration_rows=200",
    "data.comparison_rows=200",
    "data.held_out_comparison_rows=40",
    "data.train_rows=64",
    "data.validation_rows=16",
    "data.test_rows=24",
    "sft.steps=60",
    "sft.batch_size=16",
    "reward_model.steps=60",
    "reward_model.batch_size=16",
    "reward_model.gate=warn",
    "rl.steps=12",
    "rl.rollouts_per_step=32",
    "rl.max_new_tokens=16",
    "rl.checkpoint_every=2",
    "eval.every=4",
    "eval.perplexity_rows=16",
    "study=faults",
)
"""A run of seconds with every phase in it."""


@dataclass(frozen=True)
class Told:
    """One fault, how it was done, and what was lost."""

    fault: str
    how: str
    lost: str


class Trials:
    """Runs in one folder, where the uninterrupted ones are kept."""

    def __init__(self, folder: Path, methods: Sequence[str] = ("ppo", "grpo"), changes: Sequence[str] = ()) -> None:
        self.folder, self.methods, self.changes = folder, methods, changes
        self.rng, self.numbers = random.Random(SEED), count(1)

    def typed(self, method: str, output_dir: Path, *more: str) -> list[str]:
        """What a person types."""
        return [*SMALL, *self.changes, f"algo={method}", f"output_dir={output_dir}", *more]

    def run(self, words: Sequence[str], fuse: str | None = None) -> subprocess.CompletedProcess[str]:
        """Type it; with a fuse it may not come to its end."""
        return subprocess.run(command(words, fuse), cwd=ROOT, capture_output=True, text=True, check=False)

    def finish(self, words: Sequence[str]) -> None:
        """Type it, and it must end well."""
        done = self.run(words)
        assert done.returncode == 0, done.stdout + done.stderr

    def histories(self) -> dict[str, History]:
        """What the uninterrupted run of each method did to its files."""
        return {method: self._whole[method][0] for method in self.methods}

    def wanted(self, method: str) -> State:
        """What the uninterrupted run left."""
        return self._whole[method][1]

    def lost(self, method: str, output_dir: Path, ignoring: Sequence[str] = (), uri: str | None = None) -> str:
        """What is not as the uninterrupted run left it."""
        found = differences(self.wanted(method), end_state(output_dir, uri))
        return ", ".join(name for name in found if name not in ignoring) or NOTHING

    def fresh(self) -> Path:
        """An empty output folder of its own, but for MLflow's empty database, which takes seconds to make."""
        output_dir = self.folder / f"life-{next(self.numbers)}"  # MLflow keeps a database open, so no name comes twice
        output_dir.mkdir()
        shutil.copy(self._database, output_dir / "mlflow.db")
        return output_dir

    def kills(self, places: Sequence[Place], times: int = 3) -> Iterator[Told]:
        """At each place, `times` runs killed and typed again, the methods in turn."""
        for number, place in enumerate(place for _ in range(times) for place in places):
            method = self.methods[number % len(self.methods)]
            output_dir, moment = self.stopped(method, place)
            self.finish(self.typed(method, output_dir))
            yield Told(f"killed: {place.name}", f"{method}, {moment}", self.lost(method, output_dir))
            shutil.rmtree(output_dir)

    def stopped(self, method: str, place: Place, number: int = signal.SIGKILL) -> tuple[Path, Moment]:
        """A run that got a signal there, its folder, and the moment it was."""
        for _ in range(10):
            moment, output_dir = self.histories()[method].moment(place, self.rng), self.fresh()
            done = self.run(self.typed(method, output_dir), moment.fuse(number))
            if done.returncode in (-number, 130):
                return output_dir, moment
            assert done.returncode == 0, done.stdout + done.stderr  # a busy machine: the moment never came
        raise AssertionError(f"ten runs came to their end before a moment in {place.name}")

    @cached_property
    def _whole(self) -> dict[str, tuple[History, State]]:
        return {method: self._left_in_peace(method) for method in self.methods}

    def _left_in_peace(self, method: str) -> tuple[History, State]:
        output_dir, trace = self.fresh(), self.folder / f"{method}.trace"
        done = self.run(self.typed(method, output_dir), json.dumps({"trace": str(trace)}))
        assert done.returncode == 0, done.stdout + done.stderr
        return History(trace, output_dir), end_state(output_dir)

    @cached_property
    def _database(self) -> Path:
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        MlflowClient(f"sqlite:///{self.folder}/empty.db").search_experiments()
        return self.folder / "empty.db"


def command(words: Sequence[str], fuse: str | None = None) -> list[str]:
    """The program, with a fuse or without."""
    program = ["-m", "alignbench"] if fuse is None else ["-m", "validation.faults.kill_switch", fuse]
    return [sys.executable, *program, *words]
