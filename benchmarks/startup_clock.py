"""Runs alignbench as it is typed, and writes down when each part of its start was over, and what its records took.

    python -m benchmarks.startup_clock FILE algo=grpo ...

FILE gets JSON: `marks` are [part, seconds since the process was started, seconds of the processor that it has had,
heavy modules imported in it], up to the beginning of the first step; `records` are seconds of the whole run by what was
written; `follower` are CPU seconds of the process that logs to MLflow.
"""

import json
import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

BEGAN = "ALIGNBENCH_BEGAN"
"""The variable that says when this process was started, on the monotonic clock, which all processes share."""
HEAVY = (
    "torch",
    "transformers",
    "mlflow",
    "sqlalchemy",
    "pandas",
    "pyarrow",
    "scipy",
    "statsmodels",
    "matplotlib",
    "datasets",
    "peft",
)


class Clock:
    """What was seen so far."""

    def __init__(self, began: float) -> None:
        self.began, self.known = began, set[str]()
        self.marks = list[tuple[str, float, float, list[str]]]()
        self.records: dict[str, float] = defaultdict(float)
        self.recording = False

    def mark(self, part: str) -> None:
        """This part is over; only the first time counts."""
        if part in (name for name, *_ in self.marks):
            return
        new = [name for name in HEAVY if name in sys.modules and name not in self.known]
        self.known |= set(new)
        self.marks.append((part, time.monotonic() - self.began, time.process_time(), new))

    def at_call(self, owner: Any, name: str, part: str) -> None:
        """The part is over when this is called."""
        inner = getattr(owner, name)

        @wraps(inner)
        def called(*args: Any, **kwargs: Any) -> Any:
            self.mark(part)
            return inner(*args, **kwargs)

        setattr(owner, name, called)

    def timed(self, inner: Callable[..., Any], what: str) -> Callable[..., Any]:
        """The same, its seconds added to `what`, unless it is part of something that is timed already."""

        @wraps(inner)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            if self.recording:
                return inner(*args, **kwargs)
            began, self.recording = time.monotonic(), True
            try:
                return inner(*args, **kwargs)
            finally:
                self.recording = False
                self.records[what] += time.monotonic() - began

        return recorded


def watch(clock: Clock) -> None:
    """Put the clock into the pipeline, which is imported here in the order in which it imports, but part by part."""
    import torch  # noqa: F401

    clock.mark("import torch")
    import transformers.modeling_utils  # noqa: F401

    clock.mark("import transformers")
    from alignbench.engine.collect_rollouts import RolloutCollector
    from alignbench.runs import pipeline
    from alignbench.runs.shared_models import SharedModels
    from alignbench.store.checkpoints import Checkpoints
    from alignbench.store.run_logger import RunLogger
    from alignbench.store.run_status import RunStatus
    from alignbench.store.tracker import Tracker

    clock.mark("import the rest")
    clock.at_call(pipeline.Pipeline, "check", "settings checked")
    clock.at_call(pipeline.Pipeline, "run", "data and tokenizer made, and checked")
    clock.at_call(pipeline.Pipeline, "prompts", "model loaded")
    clock.at_call(SharedModels, "tracker", "prompts read, what it is made of written down")
    clock.at_call(pipeline.Pipeline, "train", "tracker opened")
    clock.at_call(RolloutCollector, "__call__", "first marks on validation prompts")
    for what, owner, names in (
        ("numbers, and what was used", RunLogger, ("record", "records_prefix", "artifact", "dataset")),
        ("pictures and tables", RunLogger, ("histogram", "table")),
        ("opening and closing the tracker", Tracker, ("open", "close")),
        ("checkpoints", Checkpoints, ("save",)),
        ("checkpoints", pipeline, ("snapshot",)),
        ("final model and its card", pipeline.loading, ("save",)),
        ("final model and its card", pipeline, ("write_card",)),
        ("status, config, manifest, answers", pipeline, ("write_atomically",)),
        ("status, config, manifest, answers", pipeline.Pipeline, ("describe",)),
        ("status, config, manifest, answers", RunStatus, ("__enter__", "__exit__")),
    ):
        for name in names:
            inner = clock.timed(getattr(owner, name), what)
            setattr(owner, name, staticmethod(inner) if (owner, name) == (Tracker, "open") else inner)


def follower_seconds() -> float:
    """CPU seconds of the child processes that have ended: the follower, which logs to MLflow, and calls of git."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Do what the door does, with a clock."""
    clock, file = Clock(float(os.environ[BEGAN])), Path(sys.argv.pop(1))
    clock.mark("Python")
    from alignbench.commands import train as door
    from alignbench.commands.environment import prepare_environment

    clock.mark("import Hydra")
    inner = door.job

    def job(cfg: Any) -> None:
        clock.mark("config composed")
        door.gc_pause.rest()
        watch(clock)
        inner(cfg)

    door.job = job
    sys.argv[0] = "alignbench"
    prepare_environment()
    door.main({})
    told = {"marks": clock.marks, "records": clock.records, "follower": follower_seconds()}
    file.write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
