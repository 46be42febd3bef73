"""Run alignbench and record when each part of its start ended, and the time spent on logging.

    python -m benchmarks.startup_clock FILE algo=grpo ...

Writes JSON to FILE: `marks` are [part, seconds since the process started, CPU seconds, heavy modules imported in the
part], up to the first step; `records` are seconds of the whole run by kind of record; `follower` are CPU seconds of the
process that logs to MLflow.
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

STARTED = "ALIGNBENCH_STARTED"
"""Environment variable with the start of this process on the monotonic clock, which all processes share."""
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
    """Marks and records so far."""

    def __init__(self, start: float) -> None:
        self.start, self.known = start, set[str]()
        self.marks = list[tuple[str, float, float, list[str]]]()
        self.records: dict[str, float] = defaultdict(float)
        self.recording = False

    def mark(self, part: str) -> None:
        """Mark the end of a part, the first time it ends."""
        if part in (name for name, *_ in self.marks):
            return
        new = [name for name in HEAVY if name in sys.modules and name not in self.known]
        self.known |= set(new)
        self.marks.append((part, time.monotonic() - self.start, time.process_time(), new))

    def mark_at_call(self, owner: Any, name: str, part: str) -> None:
        """Mark the end of a part when `owner.name` is called."""
        inner = getattr(owner, name)

        @wraps(inner)
        def called(*args: Any, **kwargs: Any) -> Any:
            self.mark(part)
            return inner(*args, **kwargs)

        setattr(owner, name, called)

    def timed(self, inner: Callable[..., Any], kind: str) -> Callable[..., Any]:
        """The function, with its seconds added to `kind` unless an enclosing call is timed already."""

        @wraps(inner)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            if self.recording:
                return inner(*args, **kwargs)
            start, self.recording = time.monotonic(), True
            try:
                return inner(*args, **kwargs)
            finally:
                self.recording = False
                self.records[kind] += time.monotonic() - start

        return recorded


def instrument(clock: Clock) -> None:
    """Import the pipeline part by part, in its own order, and add the clock to it."""
    import torch  # noqa: F401

    clock.mark("import torch")
    import transformers.modeling_utils  # noqa: F401

    clock.mark("import transformers")
    from alignbench.engine.collect_rollouts import RolloutCollector
    from alignbench.models import loading
    from alignbench.runs import pipeline
    from alignbench.runs.shared_models import SharedModels
    from alignbench.store.checkpoints import Checkpoints
    from alignbench.store.run_logger import RunLogger
    from alignbench.store.run_status import RunStatus
    from alignbench.store.tracker import Tracker

    clock.mark("import other modules")
    clock.mark_at_call(pipeline.Pipeline, "check", "settings checked")
    clock.mark_at_call(pipeline.Pipeline, "run", "data and tokenizer loaded and checked")
    clock.mark_at_call(pipeline.Pipeline, "prompts", "model loaded")
    clock.mark_at_call(SharedModels, "tracker", "prompts encoded, manifest written")
    clock.mark_at_call(pipeline.Pipeline, "train", "tracker opened")
    clock.mark_at_call(RolloutCollector, "__call__", "first evaluation on validation prompts")
    for kind, owner, names in (
        ("metrics, artifacts and datasets", RunLogger, ("record", "records_prefix", "artifact", "dataset")),
        ("plots and tables", RunLogger, ("histogram", "table")),
        ("opening and closing the tracker", Tracker, ("open", "close")),
        ("checkpoints", Checkpoints, ("save",)),
        ("checkpoints", pipeline, ("snapshot",)),
        ("final model and its card", loading, ("save",)),
        ("final model and its card", pipeline, ("write_card",)),
        ("status, config, manifest, responses", pipeline, ("write_atomically",)),
        ("status, config, manifest, responses", pipeline.Pipeline, ("describe",)),
        ("status, config, manifest, responses", RunStatus, ("__enter__", "__exit__")),
    ):
        for name in names:
            inner = clock.timed(getattr(owner, name), kind)
            setattr(owner, name, staticmethod(inner) if (owner, name) == (Tracker, "open") else inner)


def follower_seconds() -> float:
    """CPU seconds of the ended child processes: the follower that logs to MLflow, and git."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Run the command line with a clock."""
    clock, file = Clock(float(os.environ[STARTED])), Path(sys.argv.pop(1))
    clock.mark("Python")
    from alignbench.commands import train
    from alignbench.commands.environment import prepare_environment
    from alignbench.core import gc_pause

    clock.mark("import Hydra")
    inner = train.job

    def job(cfg: Any) -> None:
        clock.mark("config composed")
        gc_pause.pause()
        instrument(clock)
        inner(cfg)

    train.job = job
    sys.argv[0] = "alignbench"
    prepare_environment()
    train.main({})
    result = {"marks": clock.marks, "records": clock.records, "follower": follower_seconds()}
    file.write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
