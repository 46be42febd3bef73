"""A process beside a run that follows its files and logs them to MLflow; training never imports it or waits for it.

`python -m alignbench.store.follower` reads the folder of a run in each line of stdin and writes warnings to stdout.
When stdin ends, the process logs what is left of the runs that have ended, and exits.
"""

import atexit
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from subprocess import PIPE, Popen, TimeoutExpired
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
"""How long the end of a run waits for MLflow; the process ends soon after that in any case."""


class Follower:
    """The follower of this process, started with the first run and ended by `finish`."""

    def __init__(self) -> None:
        self._process: Popen[str] | None = None
        self._run_dirs: dict[Path, None] = {}

    def follow(self, run_dir: Path) -> None:
        """Log a run folder, or look at it now when it is followed already; returns at once."""
        self._run_dirs[run_dir] = None
        if self._process is None or self._process.poll() is not None:
            self._start()
        else:
            self._write(self._process, [run_dir])

    def finish(self) -> None:
        """Wait until MLflow has all records of the runs that have ended, at most `FINISH_SECONDS`; warn if it fails."""
        if self._process is None:
            return
        try:
            code = self._wait(self._process)
            if code:
                code = self._wait(self._start())
            if code != 0:
                logger.warning("MLflow does not have all records: run `alignbench sync` to log the rest")
        finally:  # an interrupted run does not wait a second time
            self._process = None
            self._run_dirs.clear()

    def _start(self) -> "Popen[str]":
        if self._process is not None:
            code = self._process.returncode
            logger.warning("the process that logs to MLflow ended with exit code %d: it is started again", code)
        command = [sys.executable, "-m", __spec__.name]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path}  # a new session: Ctrl-C must not interrupt it
        self._process = Popen(command, stdin=PIPE, stdout=PIPE, text=True, start_new_session=True, env=environment)
        self._listener = Thread(target=_relay_warnings, args=(self._process.stdout,), daemon=True)
        self._listener.start()
        self._write(self._process, list(self._run_dirs))
        return self._process

    def _write(self, process: "Popen[str]", run_dirs: list[Path]) -> None:
        assert process.stdin is not None
        with suppress(OSError):  # it was killed: `finish` starts another one
            process.stdin.write("".join(f"{run_dir}\n" for run_dir in run_dirs))
            process.stdin.flush()

    def _wait(self, process: "Popen[str]") -> int | None:
        """The exit code; None when it had to be killed."""
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        try:
            code = process.wait(FINISH_SECONDS)
        except TimeoutExpired:
            process.kill()
            process.wait()
            return None
        self._listener.join(1.0)
        return code


FOLLOWER = Follower()
atexit.register(FOLLOWER.finish)


def _relay_warnings(lines: IO[str]) -> None:
    for line in lines:
        logger.warning("%s", line.rstrip("\n"))


def advance(run: RunFollower, closing: bool, failed: set[str]) -> bool:
    """Log what is new, and the final status if there is one. Returns whether nothing is left to do.

    With `closing`, a run without a status is left alone: its process was killed. `failed` has the URIs that a warning
    was given for.
    """
    try:
        info = read_info(run.run_dir)  # before its records: with a status, all of them are on disk
    except (OSError, ValueError, TypeError):  # the folder was removed, or its tracking.json damaged
        return True
    if info.logged or (closing and info.status is None):
        return True
    if info.status is None and time.monotonic() < run.retry_at:
        return False
    try:
        run.update() if info.status is None else run.end(info.status)
    except Exception as error:  # noqa: BLE001  a server, its database and its network raise errors of any kind
        run.close()
        run.retry_at = time.monotonic() + RETRY_SECONDS
        if info.uri not in failed:
            failed.add(info.uri)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
            logger.warning("MLflow at %s fails: %s. The run continues; its records are on disk", info.uri, reason)
    return info.status is not None


def main() -> None:
    """Follow runs until stdin ends and nothing is left to do."""
    warnings = logging.StreamHandler(os.fdopen(os.dup(sys.stdout.fileno()), "w"))
    warnings.setLevel(logging.WARNING)
    logging.getLogger("alignbench").addHandler(warnings)
    logging.raiseExceptions = False  # the run that reads them may be killed
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # for what libraries print
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # sent to all processes of a job: the run ends it
        signal.signal(number, signal.SIG_IGN)
    queue, runs, failed, closing = SimpleQueue[Path | None](), dict[Path, RunFollower](), set[str](), False
    Thread(target=_listen, args=(queue,), daemon=True).start()
    gc_pause.pause()
    while not closing:
        with suppress(Empty):
            run_dir = queue.get(timeout=POLL_SECONDS)
            closing = run_dir is None
            if run_dir is not None and run_dir not in runs:
                runs[run_dir] = RunFollower(run_dir, MLflowRun)
        for done in [run for run in runs.values() if advance(run, closing, failed)]:
            done.close()
            del runs[done.run_dir]
        gc_pause.resume()  # MLflow is imported by now
    os._exit(0)


def _listen(queue: "SimpleQueue[Path | None]") -> None:
    for line in sys.stdin:
        queue.put(Path(line.rstrip("\n")))
    queue.put(None)
    time.sleep(FINISH_SECONDS + 10)
    os._exit(1)


if __name__ == "__main__":
    main()
