"""Runs alignbench as it is typed, and kills it at a moment named beforehand.

    python -m validation.faults.kill_switch '{"path": "checkpoints/unfinished", "event": "open", "skip": 1}' algo=grpo
    python -m validation.faults.kill_switch '{"trace": "events.jsonl"}' algo=grpo      writes all moments down

A moment is a file event, as Python's own audit hook tells it: the (skip + 1)-th time that a path whose end matches
`path` is opened, renamed or removed, or a folder made. The process gets its signal before that happens, or `seconds`
after it. The process that tells MLflow is watched too: what happens there kills both.
"""

import json
import os
import re
import runpy
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

GIVEN = "ALIGNBENCH_FUSE"
"""The variable by which the process that tells MLflow learns of the fuse."""
EVENTS = {"open": "open", "os.rename": "rename", "os.remove": "remove", "os.mkdir": "mkdir"}


def told(event: str, arguments: tuple[Any, ...]) -> tuple[str, str]:
    """What happens to a file, and its path; empty words for whatever else happens. A renaming goes by its new name."""
    path = arguments[event == "os.rename"] if event in EVENTS else None
    return (EVENTS[event], os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else ("", "")


class Trace:
    """Writes each file event down with its time."""

    def __init__(self, trace: str, began: float) -> None:
        self.file = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.began = began

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The audit hook."""
        what, path = told(event, arguments)
        if what:
            os.write(self.file, (json.dumps([time.monotonic() - self.began, what, path]) + "\n").encode())


class Fuse:
    """Counts the events that match; the last of them is the end."""

    def __init__(
        self,
        event: str,
        path: str,
        skip: int = 0,
        seconds: float = 0.0,
        number: int = signal.SIGKILL,
        run: int | None = None,
    ) -> None:
        """`run` is the process to kill, this one unless it is said."""
        self.event, self.path, self.skip, self.seconds = event, re.compile(f"{path}$"), skip, seconds
        self.number, self.burning, self.run = number, False, run

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The audit hook."""
        if self.burning:
            return
        what, path = told(event, arguments)
        if what != self.event or not self.path.search(path):
            return
        self.skip -= 1
        if self.skip >= 0:
            return
        self.burning = True
        if self.seconds:
            threading.Thread(target=self._burn, daemon=True).start()
        else:
            self._burn()

    def _burn(self) -> None:
        time.sleep(self.seconds)
        if self.run is not None:
            os.kill(self.run, self.number)
        if self.run is None or self.number == signal.SIGKILL:
            os.kill(os.getpid(), self.number)


def watch(given: dict[str, Any]) -> None:
    """Add the hook, which stays until the end."""
    sys.addaudithook(Trace(**given) if "trace" in given else Fuse(**given))


def follow() -> None:
    """Watch the process that tells MLflow."""
    if GIVEN in os.environ:
        watch(json.loads(os.environ[GIVEN]))


def main() -> None:
    """Set the fuse, then do what the door does."""
    given = json.loads(sys.argv.pop(1))
    here = Path(__file__).parent
    sys.path.insert(0, str(here.parents[1]))
    for_both = {"began": time.monotonic()} if "trace" in given else {}
    for_teller = for_both if "trace" in given else {"run": os.getpid()}
    os.environ[GIVEN] = json.dumps({**given, **for_teller})
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(here / "follow"), os.environ.get("PYTHONPATH")]))
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it to what it runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    watch({**given, **for_both})
    runpy.run_module("alignbench", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
