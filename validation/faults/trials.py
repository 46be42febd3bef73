"""Small real runs that are stopped, started again, and compared with an uninterrupted run."""

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
from validation.faults.kill_points import History, KillPoint, Section

ROOT = Path(__file__).parents[2]
SEED = 20261121
NOTHING = "nothing"
ATTEMPTS = 10
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
"""A run of seconds with every stage."""


@dataclass(frozen=True)
class Outcome:
    """One fault, how it was caused, and what was lost."""

    fault: str
    how: str
    lost: str


class Trials:
    """Runs in one folder, each compared with the uninterrupted run of its method."""

    def __init__(self, folder: Path, methods: Sequence[str] = ("ppo", "grpo"), changes: Sequence[str] = ()) -> None:
        self.folder, self.methods, self.changes = folder, methods, changes
        self.rng, self.numbers = random.Random(SEED), count(1)

    def words(self, method: str, output_dir: Path, *more: str) -> list[str]:
        """The words of the command line."""
        return [*SMALL, *self.changes, f"algo={method}", f"output_dir={output_dir}", *more]

    def run(self, words: Sequence[str], switch: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command, with a kill switch or without."""
        return subprocess.run(command(words, switch), cwd=ROOT, capture_output=True, text=True, check=False)

    def finish(self, words: Sequence[str]) -> None:
        """Run a command, which must succeed."""
        done = self.run(words)
        assert done.returncode == 0, done.stdout + done.stderr

    def histories(self) -> dict[str, History]:
        """The file events of the uninterrupted run of each method."""
        return {method: self._uninterrupted[method][0] for method in self.methods}

    def expected(self, method: str) -> State:
        """The end state of the uninterrupted run."""
        return self._uninterrupted[method][1]

    def lost(self, method: str, output_dir: Path, ignoring: Sequence[str] = (), uri: str | None = None) -> str:
        """What differs from the end state of the uninterrupted run."""
        found = differences(self.expected(method), end_state(output_dir, uri))
        return ", ".join(name for name in found if name not in ignoring) or NOTHING

    def new_output_dir(self) -> Path:
        """A new output folder with an empty MLflow database, which takes seconds to create."""
        output_dir = self.folder / f"run-{next(self.numbers)}"  # MLflow keeps a database open: names are not reused
        output_dir.mkdir()
        shutil.copy(self._database, output_dir / "mlflow.db")
        return output_dir

    def kill_and_finish(self, sections: Sequence[Section], times: int = 3) -> Iterator[Outcome]:
        """In each section, kill `times` runs and run the same command again; the methods alternate."""
        for number, section in enumerate(section for _ in range(times) for section in sections):
            method = self.methods[number % len(self.methods)]
            output_dir, point = self.stop(method, section)
            self.finish(self.words(method, output_dir))
            yield Outcome(f"killed: {section.name}", f"{method}, {point}", self.lost(method, output_dir))
            shutil.rmtree(output_dir)

    def stop(self, method: str, section: Section, number: int = signal.SIGKILL) -> tuple[Path, KillPoint]:
        """Stop a run in a section by a signal. Returns its folder and the kill point."""
        for _ in range(ATTEMPTS):
            point, output_dir = self.histories()[method].kill_point(section, self.rng), self.new_output_dir()
            done = self.run(self.words(method, output_dir), point.switch(number))
            if done.returncode in (-number, 130):
                return output_dir, point
            assert done.returncode == 0, done.stdout + done.stderr  # a busy machine: the event did not occur
        raise AssertionError(f"{ATTEMPTS} runs finished before a kill point in {section.name}")

    @cached_property
    def _uninterrupted(self) -> dict[str, tuple[History, State]]:
        return {method: self._trace(method) for method in self.methods}

    def _trace(self, method: str) -> tuple[History, State]:
        output_dir, trace = self.new_output_dir(), self.folder / f"{method}.trace"
        done = self.run(self.words(method, output_dir), json.dumps({"trace": str(trace)}))
        assert done.returncode == 0, done.stdout + done.stderr
        return History(trace, output_dir), end_state(output_dir)

    @cached_property
    def _database(self) -> Path:
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        MlflowClient(f"sqlite:///{self.folder}/empty.db").search_experiments()
        return self.folder / "empty.db"


def command(words: Sequence[str], switch: str | None = None) -> list[str]:
    """The command line, with a kill switch or without."""
    program = ["-m", "alignbench"] if switch is None else ["-m", "validation.faults.kill_switch", switch]
    return [sys.executable, *program, *words]
