"""MLflow in a process of its own: no run waits for its import, which takes seconds, or shares a core with it.

`python -m alignbench.store.teller` reads one question in a line of stdin and answers it in a line of stdout, as JSON,
until stdin ends, which it does when whoever asks is gone.
"""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from alignbench.core import gc_pause
from alignbench.store.mlflow_run import MLflowRun, MLflowRunInfo
from alignbench.store.sender import Item

logger = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parents[2]


class TellerFailed(Exception):
    """What MLflow said when it could not be told, or that the process which tells it is gone."""


class Teller:
    """That process, started when it is first asked; one for all the runs of this process, one question at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = Lock()

    def ask(self, **question: Any) -> Any:
        """The answer. Raises TellerFailed with the words of whatever was raised there."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._process = _start()
            answer = _converse(self._process, question)
        for warning in answer["warnings"]:
            logger.warning("%s", warning)
        if "error" in answer:
            raise TellerFailed(answer["error"])
        return answer["value"]


class FarRun:
    """The MLflow run of a run folder, told from afar."""

    def __init__(self, card: MLflowRunInfo, run_dir: Path) -> None:
        settings = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
        self._number = TELLER.ask(do="connect", card=asdict(card), run_dir=str(run_dir), environment=settings)

    def tell(self, items: Sequence[Item]) -> None:
        """As `MLflowRun.tell`."""
        if items:
            TELLER.ask(do="tell", run=self._number, items=list(items))

    def end(self, status: str) -> None:
        """As `MLflowRun.end`."""
        TELLER.ask(do="end", run=self._number, status=status)


TELLER = Teller()


def _start() -> "subprocess.Popen[str]":
    """In a session of its own: what interrupts a run must not interrupt the telling of it."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", __spec__.name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def _converse(process: "subprocess.Popen[str]", question: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())
    except (OSError, ValueError) as error:
        process.kill()
        process.wait()
        raise TellerFailed(f"the process that tells it ended with code {process.returncode}") from error


class Told:
    """What that process does: MLflow runs by number, and what was warned of meanwhile."""

    def __init__(self) -> None:
        self._runs: list[MLflowRun] = []
        self._warnings = Collected()
        logging.getLogger("alignbench").addHandler(self._warnings)

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """A value or an error, beside the warnings."""
        try:
            answer = {"value": self._do(**question)}
        except Exception as error:  # noqa: BLE001  a server, its database and its network raise errors of any kind
            answer = {"error": str(error).strip() or type(error).__name__}
        return {**answer, "warnings": self._warnings.taken()}

    def _do(self, do: str, **given: Any) -> int | None:
        if do == "connect":
            os.environ.update(given["environment"])
            self._runs.append(MLflowRun(MLflowRunInfo(**given["card"]), Path(given["run_dir"])))
            return len(self._runs) - 1
        run = self._runs[given["run"]]
        return run.tell(given["items"]) if do == "tell" else run.end(given["status"])


class Collected(logging.Handler):
    """Warnings, to be passed on."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self._seen.append(record.getMessage())

    def taken(self) -> list[str]:
        """Those since this was last called."""
        seen, self._seen = self._seen, []
        return seen


def main() -> None:
    """Answer until nobody asks; then end at once, whatever is being told: it stands on disk."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    for number in (signal.SIGTERM, signal.SIGHUP):  # sent to all processes, as when a job is ended: our run says how
        signal.signal(number, signal.SIG_IGN)
    asked, told = SimpleQueue[str](), Told()
    Thread(target=_listen, args=(asked,), daemon=True).start()
    gc_pause.rest()
    while True:
        answers.write(json.dumps(told.answer(json.loads(asked.get()))) + "\n")
        answers.flush()
        gc_pause.wake()  # MLflow is imported by now


def _listen(asked: "SimpleQueue[str]") -> None:
    for line in sys.stdin:
        asked.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
