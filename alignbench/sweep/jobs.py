"""The jobs of a sweep as processes: started, listened to, stopped, and their end written down."""

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

SECONDS_TO_STOP = 30.0
"""How long an interrupted job may take to write down where it stands."""
SECONDS_BETWEEN_LOOKS = 1.0
"""How often it is looked whether another process has left a run's folder."""


@dataclass(frozen=True)
class Job:
    """One run of a sweep: who it is, what was typed for it, and the command that runs it."""

    identity: "Identity"
    label: str
    overrides: tuple[str, ...]
    command: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """The entry of study.json; the folder is relative to that file's."""
        who = self.identity
        names = {"method": who.method, "model": who.model, "seed": who.seed, "key": who.key}
        return {**names, "run_dir": who.run_dir.name, "overrides": list(self.overrides)}

    def status(self) -> dict[str, Any]:
        file = self.identity.run_dir / "status.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def is_finished(self) -> bool:
        status = self.status()
        return status.get("status") == "finished" and status.get("key") == self.identity.key


@dataclass(frozen=True)
class Failure:
    """A job that did not finish, and why."""

    job: Job
    code: int
    reason: str

    def __str__(self) -> str:
        log = self.job.identity.run_dir / "run.log"
        return f"{self.job.label} (exit {self.code}): {self.reason}" + (f"; see {log}" if log.exists() else "")


class JobRunner:
    """Runs jobs, `n_jobs` at a time; what is finished is skipped."""

    def __init__(self, n_jobs: int) -> None:
        self.n_jobs = n_jobs
        self.children: list[subprocess.Popen[str]] = []
        self.starting = Lock()
        self.stopping = False

    def run(self, jobs: Sequence[Job]) -> list[Failure]:
        """Run all jobs, whatever happens to some of them. An interrupt stops all of them and goes on upwards."""
        with ThreadPoolExecutor(self.n_jobs) as pool:
            ends = [pool.submit(self._run, job, f"{number} of {len(jobs)}") for number, job in enumerate(jobs, 1)]
            try:
                return [failure for end in ends if (failure := end.result()) is not None]
            except KeyboardInterrupt:
                say("stopping: each running job writes down where it stands; the same command goes on from there")
                self._stop()
                raise

    def _run(self, job: Job, place: str) -> Failure | None:
        self._let_others_finish(job, place)
        if job.is_finished():
            say(f"{job.label} ({place}): already finished")
            return None
        before, began = job.status(), now()
        child = self._start(job, place)
        if child is None:
            return None
        tail = self._listen(child, f"[{job.label}] ")
        if child.returncode and (in_use(job.identity.run_dir) or job.is_finished()):
            return self._run(job, place)  # another process was quicker: it has the folder
        failure = self._end(job, child.returncode, tail, before, began)
        word = "stopped" if self.stopping else "FAILED"
        say(f"{job.label} ({place}): done" if failure is None else f"{word} {failure}")
        return failure

    def _let_others_finish(self, job: Job, place: str) -> None:
        """Wait while another process, such as the same sweep typed twice, has this very run in its hands."""
        if in_use(job.identity.run_dir):
            say(f"{job.label} ({place}): another process is running it; waiting for its end")
        while in_use(job.identity.run_dir) and not self.stopping:
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _start(self, job: Job, place: str) -> subprocess.Popen[str] | None:
        """The job's process, in a session of its own so that an interrupt reaches it once, from here."""
        with self.starting:
            if self.stopping:
                return None
            say(f"{job.label} ({place}): {' '.join(job.overrides)}")
            owns_terminal = self.n_jobs == 1 and sys.stdout.isatty()
            child = subprocess.Popen(
                job.command,
                stdin=subprocess.DEVNULL,
                stdout=None if owns_terminal else subprocess.PIPE,
                stderr=subprocess.PIPE if owns_terminal else subprocess.STDOUT,
                env=environment(self.n_jobs),
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self.children.append(child)
            return child

    def _listen(self, child: subprocess.Popen[str], prefix: str) -> list[str]:
        """Wait for the end of a child while its lines are shown. Returns the last ones."""
        tail: deque[str] = deque(maxlen=30)
        listener = Thread(target=relay, args=(child.stdout or child.stderr, prefix, tail), daemon=True)
        listener.start()
        child.wait()
        kill(child)
        listener.join()
        return list(tail)

    def _end(self, job: Job, code: int, tail: list[str], before: dict[str, Any], began: str) -> Failure | None:
        """Why the job failed, or None; in either case status.json tells the same afterwards."""
        status = job.status()
        if code == 0 and job.is_finished():
            return None
        if status == before or status.get("status") not in ("failed", "interrupted"):
            word = "interrupted" if self.stopping else "failed"
            status = end_status(job, status, word, explain(code, tail), began)
        return Failure(job, code, status["reason"] or explain(code, tail))

    def _stop(self) -> None:
        """End all children: asked first, so that they can write down where they stand, then by force."""
        handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        with self.starting:  # an impatient second interrupt would cost the runs what they are writing down
            self.stopping = True
        running = [child for child in self.children if child.poll() is None]
        for child in running:
            child.terminate()
        deadline = time.monotonic() + SECONDS_TO_STOP
        for child in running:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                say(f"a job did not stop within {SECONDS_TO_STOP:.0f} seconds and is ended by force")
                kill(child)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def kill(child: subprocess.Popen[str]) -> None:
    """End whatever is left of a child's session: it must not outlive its job."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def relay(stream: IO[str], prefix: str, tail: deque[str]) -> None:
    for line in stream:
        tail.append(line.rstrip("\n"))
        say(prefix + line.rstrip("\n"))


def environment(n_jobs: int) -> dict[str, str]:
    """What a child inherits; jobs that run side by side share the cores, unless the user said how many threads."""
    inherited = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    inherited["PYTHONUNBUFFERED"] = "1"
    if n_jobs > 1:
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        inherited.setdefault("OMP_NUM_THREADS", str(max(1, cores // n_jobs)))
    return inherited


def explain(code: int, tail: Sequence[str]) -> str:
    """Why a process ended as it did: the signal that killed it, or the error it told last."""
    if code < 0:
        hint = ", often because the machine ran out of memory" if -code == signal.SIGKILL else ""
        return f"killed by signal {-code} ({signal.Signals(-code).name}{hint})"
    told = [number for number, line in enumerate(tail) if line.startswith("error: ")]
    if told:
        return " ".join(" ".join(tail[told[-1] :]).split()).removeprefix("error: ")
    last = next((line.strip() for line in reversed(tail) if line.strip()), "it said nothing")
    return last if code else f"it ended without saying that it had finished; last line: {last}"


def end_status(job: Job, status: dict[str, Any], word: str, reason: str, began: str) -> dict[str, Any]:
    """Write the end of a job that could not write it itself, so that no run seems to be running for ever."""
    who = job.identity
    names = {"key": who.key, "study": who.study, "method": who.method, "model": who.model, "seed": who.seed}
    rest = {"started": began, "resumed": 0, "determinism": None, **status}
    ended = {**names, **rest, "status": word, "finished": now(), "reason": reason}
    write_atomically(make_folder(who.run_dir) / "status.json", json.dumps(ended, indent=2) + "\n")
    settle(who.run_dir)
    return ended


def settle(folder: Path) -> None:
    """Close what could not close itself in that folder, in a process of its own: this one must not break, nor wait."""
    command = [sys.executable, "-m", "alignbench", "sync", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        say((done.stdout + done.stderr).strip())


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def summarise(jobs: Sequence[Job], failures: Sequence[Failure]) -> None:
    say(f"{len(jobs) - len(failures)} of {len(jobs)} jobs done")
    for failure in failures:
        say(f"FAILED {failure}")
    if failures:
        say("The same command runs only what is missing.")
