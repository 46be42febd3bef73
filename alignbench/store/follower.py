"""A process beside a run that follows its files and logs them to MLflow; training never imports it or waits for it.

`python -m alignbench.store.follower` reads the folder of a run in each line of stdin and writes warnings to stdout.
When stdin ends, the process logs what is left of the runs that have ended, and exits.
"""

import atexit
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO

from alignbench.core import gc_pause
from alignbench.store.mlflow_run import MLflowRun
from alignbench.store.run_follower import RunFollower
from alignbench.store.tracking_info import read_info

logger = logging.getLogger("alignbench.store.follower")  # also when it runs as __main__
ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 5.0
"""How long a record waits at most before it is logged."""
RETRY_SECONDS = 30.0
"""How long to wait after an error, while the run continues, before MLflow is tried again."""
FINISH_SECONDS = 120.0
"""How long the end of a run waits for MLflow; `alignbench sync` logs what is missing then."""
WATCHDOG_SECONDS = FINISH_SECONDS + 10.0
"""How long the process may outlive its run."""


class Follower:
    """The follower of this process, started with the first run and ended by `finish`."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._listener: Thread | None = None
        self._run_dirs: dict[Path, None] = {}

    def follow(self, run_dir: Path) -> None:
        """Log a run folder, or look at it now when it is followed already; returns at once."""
        self._run_dirs[run_dir] = None
        if self._process is None:
            self._start()
        elif (code := self._process.poll()) is not None:
            self._restart(code)
        else:
            self._write([run_dir])

    def finish(self) -> None:
        """Wait until MLflow has all records of the runs that have ended, at most `FINISH_SECONDS`; warn if it fails."""
        if self._process is None:
            return
        code = self._wait(self._process)
        if code:
            code = self._wait(self._restart(code))
        if code != 0:
            logger.warning("MLflow does not have all records: run `alignbench sync` to log the rest")
        self._process = None
        self._run_dirs.clear()

    def _start(self) -> "subprocess.Popen[str]":
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C in the terminal must not interrupt it
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self._process.stdout is not None
        self._listener = Thread(target=_relay_warnings, args=(self._process.stdout,), daemon=True)
        self._listener.start()
        self._write(list(self._run_dirs))
        return self._process

    def _restart(self, code: int) -> "subprocess.Popen[str]":
        logger.warning("the process that logs to MLflow ended with exit code %d: it is started again", code)
        return self._start()

    def _write(self, run_dirs: list[Path]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(OSError):  # it was killed: `finish` starts another one
            self._process.stdin.write("".join(f"{run_dir}\n" for run_dir in run_dirs))
            self._process.stdin.flush()

    def _wait(self, process: "subprocess.Popen[str]") -> int | None:
        """The exit code; None when it had to be killed."""
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(FINISH_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None
        assert self._listener is not None
        self._listener.join(1.0)
        return process.returncode


FOLLOWER = Follower()
atexit.register(FOLLOWER.finish)


def _relay_warnings(lines: IO[str]) -> None:
    for line in lines:
        logger.warning("%s", line.rstrip("\n"))


class FollowedRuns:
    """The runs that the follower process logs."""

    def __init__(self) -> None:
        self._runs: dict[Path, RunFollower] = {}
        self._retry_at: dict[Path, float] = {}
        self._failed: set[str] = set()

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, run_dir: Path) -> None:
        """Follow a run folder from now on."""
        if run_dir not in self._runs:
            self._runs[run_dir] = RunFollower(run_dir, MLflowRun)

    def update(self, closing: bool) -> None:
        """Log what is new and drop the runs that have ended; with `closing`, drop the others as well."""
        for run_dir, run in list(self._runs.items()):
            if self._advance(run, closing):
                run.close()
                del self._runs[run_dir]

    def _advance(self, run: RunFollower, closing: bool) -> bool:
        """Whether nothing is left to do for a run."""
        try:
            info = read_info(run.run_dir)  # before its records: with a status, all of them are on disk
        except (OSError, ValueError):  # the folder was removed
            return True
        if info.logged or (closing and info.status is None):  # its process was killed
            return True
        if info.status is None and time.monotonic() < self._retry_at.get(run.run_dir, 0.0):
            return False
        try:
            run.update() if info.status is None else run.end(info.status)
        except Exception as error:  # noqa: BLE001  a server, its database and its network raise errors of any kind
            self._retry_at[run.run_dir] = time.monotonic() + RETRY_SECONDS
            if info.uri not in self._failed:
                self._failed.add(info.uri)
                reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
                logger.warning("MLflow at %s fails: %s. The run continues; its records are on disk", info.uri, reason)
        return info.status is not None


class WarningRelay(logging.Handler):
    """Writes each warning as one line."""

    def __init__(self, to: IO[str]) -> None:
        super().__init__(logging.WARNING)
        self._to = to

    def emit(self, record: logging.LogRecord) -> None:
        """Write it at once."""
        with suppress(OSError):  # the run is gone
            self._to.write(" ".join(record.getMessage().split()) + "\n")
            self._to.flush()


def main() -> None:
    """Follow runs until stdin ends and nothing is left to do."""
    warnings = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no warning of ours
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # sent to all processes of a job: the run ends it
        signal.signal(number, signal.SIG_IGN)
    logging.getLogger("alignbench").addHandler(WarningRelay(warnings))
    run_dirs, runs, closing = SimpleQueue[Path | None](), FollowedRuns(), False
    Thread(target=_listen, args=(run_dirs,), daemon=True).start()
    gc_pause.rest()
    while not closing:
        with suppress(Empty):
            run_dir = run_dirs.get(timeout=POLL_SECONDS)
            if run_dir is None:
                closing = True
            else:
                runs.add(run_dir)
        runs.update(closing)
        gc_pause.wake()  # MLflow is imported by now
    os._exit(0)


def _listen(run_dirs: "SimpleQueue[Path | None]") -> None:
    for line in sys.stdin:
        run_dirs.put(Path(line.rstrip("\n")))
    run_dirs.put(None)
    time.sleep(WATCHDOG_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
