"""Runs alignbench and kills it, or the process that logs to MLflow, right before or after a given file event.

    python -m validation.faults.kill_switch '{"event": "open", "path": "checkpoints/unfinished", "skip": 1}' algo=grpo
    python -m validation.faults.kill_switch '{"trace": "events.jsonl"}' algo=grpo      writes all file events

A file event is one of Python's audit events: a file whose path ends in `path` is opened, renamed or removed, or a
folder is created. The signal is sent right before the (skip + 1)-th such event of one process, or `seconds` after it.
An event of the follower, the process that logs to MLflow, sends SIGKILL to both processes, other signals to the run.
"""

import json
import os
import re
import runpy
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VARIABLE = "ALIGNBENCH_KILL_SWITCH"
"""The environment variable by which the follower process gets the kill switch."""
EVENTS = {"open": "open", "os.rename": "rename", "os.remove": "remove", "os.mkdir": "mkdir"}
RUN, FOLLOWER = "run", "follower"


def file_event(event: str, arguments: tuple[Any, ...]) -> tuple[str, str]:
    """The kind of a file event and the path; empty strings for other events. A rename has its new path."""
    path = arguments[event == "os.rename"] if event in EVENTS else None
    return (EVENTS[event], os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else ("", "")


class Trace:
    """An audit hook that appends each file event, its time and its process to a file."""

    def __init__(self, trace: str, start: float, process: str) -> None:
        self._file = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._start, self._process = start, process

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Write the event."""
        kind, path = file_event(event, arguments)
        if kind:
            line = json.dumps([time.monotonic() - self._start, kind, path, self._process]) + "\n"
            os.write(self._file, line.encode())


@dataclass
class KillSwitch:
    """An audit hook that counts the events that match, and sends a signal at the last of them."""

    event: str
    path: str
    skip: int = 0
    seconds: float = 0.0
    number: int = signal.SIGKILL
    pids: tuple[int, ...] = ()
    """Other processes that get the signal first."""
    spare_self: bool = False
    """Whether only the other processes get the signal."""
    _fired: bool = field(default=False, init=False)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Count the event."""
        if self._fired:
            return
        kind, path = file_event(event, arguments)
        if kind != self.event or not re.search(f"{self.path}$", path):
            return
        self.skip -= 1
        if self.skip >= 0:
            return
        self._fired = True
        if self.seconds:
            threading.Thread(target=self._fire, daemon=True).start()
        else:
            self._fire()

    def _fire(self) -> None:
        time.sleep(self.seconds)
        for pid in self.pids:
            os.kill(pid, self.number)
        if not self.spare_self:
            os.kill(os.getpid(), self.number)


def watch(settings: dict[str, Any], process: str) -> None:
    """Add the hook to this process; it cannot be removed. `settings` has `start` and `run`, the pid of the run."""
    settings = dict(settings)
    start, run, target = settings.pop("start"), settings.pop("run"), settings.pop("process", RUN)
    alone = settings.pop("alone", False)
    if "trace" in settings:
        sys.addaudithook(Trace(**settings, start=start, process=process))
    elif process == target:
        pids = (run,) if process == FOLLOWER and not alone else ()
        spare = bool(pids) and settings.get("number", signal.SIGKILL) != signal.SIGKILL
        sys.addaudithook(KillSwitch(**settings, pids=pids, spare_self=spare))


def watch_follower() -> None:
    """Add the hook to the follower process of a watched run."""
    if VARIABLE in os.environ:
        watch(json.loads(os.environ[VARIABLE]), FOLLOWER)


def main() -> None:
    """Set the kill switch, then run the command line."""
    settings = {**json.loads(sys.argv.pop(1)), "start": time.monotonic(), "run": os.getpid()}
    folder = Path(__file__).parent
    sys.path.insert(0, str(folder.parents[1]))
    os.environ[VARIABLE] = json.dumps(settings)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder / "follow"), os.environ.get("PYTHONPATH")]))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts background jobs
        signal.signal(signal.SIGINT, signal.default_int_handler)
    watch(settings, RUN)
    runpy.run_module("alignbench", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
