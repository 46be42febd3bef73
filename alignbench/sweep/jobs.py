"""Run the jobs of a sweep as subprocesses: start them, relay their output, stop them and record how they ended."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock, Thread
from typing import IO, TYPE_CHECKING, Any

from alignbench.store.disk import make_folder, write_atomically
from alignbench.store.run_status import in_use

if TYPE_CHECKING:
    from alignbench.runs.settings import Identity

STOP_TIMEOUT = 30.0
"""Seconds that an interrupted job has to save its state before it is killed."""
POLL_INTERVAL = 1.0
"""Seconds between checks whether another process has released the folder of a run."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep: its identity, label and overrides, and the command that runs it."""

    identity: "Identity"
    label: str
    overrides: tuple[str, ...]
    command: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """The entry of the job in study.json; the run folder is relative to that file."""
        run = self.identity
        names = {"method": run.method, "model": run.model, "seed": run.seed, "key": run.key}
        return {**names, "run_dir": run.run_dir.name, "overrides": list(self.overrides)}

    def status(self) -> dict[str, Any]:
        """The content of status.json; empty if the file does not exist."""
        file = self.identity.run_dir / "status.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def is_finished(self) -> bool:
        """Whether the run has finished with this config."""
        status = self.status()
        return status.get("status") == "finished" and status.get("key") == self.identity.key


@dataclass(frozen=True)
class Failure:
    """A job that did not finish, with its exit code and the reason."""

    job: Job
    code: int
    reason: str

    def __str__(self) -> str:
        log = self.job.identity.run_dir / "run.log"
        return f"{self.job.label} (exit {self.code}): {self.reason}" + (f"; see {log}" if log.exists() else "")


class JobRunner:
    """Runs up to `n_jobs` jobs in parallel and skips finished ones."""

    def __init__(self, n_jobs: int) -> None:
        self.n_jobs = n_jobs
        self.children: list[subprocess.Popen[str]] = []
        self.start_lock = Lock()
        self.stopping = False

    def run(self, jobs: Sequence[Job]) -> list[Failure]:
        """Run all jobs; a failure does not stop the others. KeyboardInterrupt stops all jobs and is raised again."""
        with ThreadPoolExecutor(self.n_jobs) as pool:
            results = [pool.submit(self._run, job, f"{number} of {len(jobs)}") for number, job in enumerate(jobs, 1)]
            try:
                return [failure for result in results if (failure := result.result()) is not None]
            except KeyboardInterrupt:
                print_line("stopping: running jobs save their state; run the same command again to resume")
                self._stop()
                raise

    def _run(self, job: Job, place: str) -> Failure | None:
        self._wait_for_other_process(job, place)
        if job.is_finished():
            print_line(f"{job.label} ({place}): already finished")
            return None
        previous, started = job.status(), now()
        child = self._start(job, place)
        if child is None:
            return None
        tail = self._wait(child, f"[{job.label}] ")
        if child.returncode and (in_use(job.identity.run_dir) or job.is_finished()):
            return self._run(job, place)  # another process started the run first
        failure = self._finish(job, child.returncode, tail, previous, started)
        outcome = "stopped" if self.stopping else "FAILED"
        print_line(f"{job.label} ({place}): done" if failure is None else f"{outcome} {failure}")
        return failure

    def _wait_for_other_process(self, job: Job, place: str) -> None:
        """Wait while another process, such as a second start of the same sweep, executes this run."""
        if in_use(job.identity.run_dir):
            print_line(f"{job.label} ({place}): running in another process; waiting until it ends")
        while in_use(job.identity.run_dir) and not self.stopping:
            time.sleep(POLL_INTERVAL)

    def _start(self, job: Job, place: str) -> subprocess.Popen[str] | None:
        """Start the job in its own session, so that interrupts reach it only from here. Returns None when stopping."""
        with self.start_lock:
            if self.stopping:
                return None
            print_line(f"{job.label} ({place}): {' '.join(job.overrides)}")
            owns_terminal = self.n_jobs == 1 and sys.stdout.isatty()
            child = subprocess.Popen(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=None if owns_terminal else subprocess.PIPE,
                stderr=subprocess.PIPE if owns_terminal else subprocess.STDOUT,
                env=child_environment(self.n_jobs),
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self.children.append(child)
            return child

    def _wait(self, child: subprocess.Popen[str], prefix: str) -> list[str]:
        """Print the output of a child until it ends. Returns its last lines."""
        tail: deque[str] = deque(maxlen=30)
        reader = Thread(target=relay, args=(child.stdout or child.stderr, prefix, tail), daemon=True)
        reader.start()
        child.wait()
        kill(child)
        reader.join()
        return list(tail)

    def _finish(self, job: Job, code: int, tail: list[str], previous: dict[str, Any], started: str) -> Failure | None:
        """The failure of the job, or None. Writes status.json if the job could not."""
        status = job.status()
        if code == 0 and job.is_finished():
            return None
        if status == previous or status.get("status") not in ("failed", "interrupted"):
            outcome = "interrupted" if self.stopping else "failed"
            status = record_end(job, status, outcome, explain_exit(code, tail), started)
        return Failure(job, code, status["reason"] or explain_exit(code, tail))

    def _stop(self) -> None:
        """Terminate all children, so that they can save their state, and kill those that exceed STOP_TIMEOUT."""
        handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        with self.start_lock:  # a second interrupt is ignored: it would abort the saving of state
            self.stopping = True
        running = [child for child in self.children if child.poll() is None]
        for child in running:
            child.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT
        for child in running:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                print_line(f"a job did not stop within {STOP_TIMEOUT:.0f} seconds and is killed")
                kill(child)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def kill(child: subprocess.Popen[str]) -> None:
    """Kill all remaining processes of a child's session."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def relay(stream: IO[str], prefix: str, tail: deque[str]) -> None:
    """Print each line of `stream` with `prefix` and append it to `tail`."""
    for line in stream:
        tail.append(line.rstrip("\n"))
        print_line(prefix + line.rstrip("\n"))


def child_environment(n_jobs: int) -> dict[str, str]:
    """Environment of a child. Parallel jobs divide the CPU cores, unless OMP_NUM_THREADS is set."""
    inherited = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    inherited["PYTHONUNBUFFERED"] = "1"
    if n_jobs > 1:
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        inherited.setdefault("OMP_NUM_THREADS", str(max(1, cores // n_jobs)))
    return inherited


def explain_exit(code: int, tail: Sequence[str]) -> str:
    """The reason of an exit: the signal that killed the process, or the last error in its output."""
    if code < 0:
        hint = ", often because the machine ran out of memory" if -code == signal.SIGKILL else ""
        return f"killed by signal {-code} ({signal.Signals(-code).name}{hint})"
    errors = [number for number, line in enumerate(tail) if line.startswith("error: ")]
    if errors:
        return " ".join(" ".join(tail[errors[-1] :]).split()).removeprefix("error: ")
    last = next((line.strip() for line in reversed(tail) if line.strip()), "no output")
    return last if code else f"exited before the run was finished; last line: {last}"


def record_end(job: Job, status: dict[str, Any], outcome: str, reason: str, started: str) -> dict[str, Any]:
    """Write and return the status of a job that could not write it, so that it does not appear to be running."""
    run = job.identity
    names = {"key": run.key, "study": run.study, "method": run.method, "model": run.model, "seed": run.seed}
    rest = {"started": started, "resumed": 0, "determinism": None, **status}
    ended = {**names, **rest, "status": outcome, "finished": now(), "reason": reason}
    write_atomically(make_folder(run.run_dir) / "status.json", json.dumps(ended, indent=2) + "\n")
    sync_tracking(run.run_dir)
    return ended


def sync_tracking(folder: Path) -> None:
    """Run `alignbench sync` on `folder` in a subprocess, to close the MLflow runs of jobs that were killed."""
    command = [sys.executable, "-m", "alignbench", "sync", str(folder)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        print_line((process.stdout + process.stderr).strip())


def now() -> str:
    """The current UTC time in ISO format."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def print_line(line: str) -> None:
    """Write a line to stdout and flush."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def print_summary(jobs: Sequence[Job], failures: Sequence[Failure]) -> None:
    """Print how many jobs are done and which failed."""
    print_line(f"{len(jobs) - len(failures)} of {len(jobs)} jobs done")
    for failure in failures:
        print_line(f"FAILED {failure}")
    if failures:
        print_line("Run the same command again to run only the missing jobs.")
