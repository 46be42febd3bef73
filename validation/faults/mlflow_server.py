"""A real MLflow server on the loopback interface that can be killed and restarted."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.error import URLError
from urllib.request import urlopen

SECONDS_TO_START = 120.0
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


class Server:
    """`mlflow server` over a database, used in a `with` statement."""

    def __init__(self, folder: Path, database: str | None = None) -> None:
        self.folder, self.database = folder, database or f"sqlite:///{folder}/served.db"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the server and wait until it responds."""
        address = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        store = ["--backend-store-uri", self.database, "--artifacts-destination", str(self.folder / "served")]
        command = [sys.executable, "-m", "mlflow", "server", *address, *store]
        with (self.folder / "server.log").open("ab") as log:
            environment = {**os.environ, **QUIET}
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)
        deadline = time.monotonic() + SECONDS_TO_START
        while not self._responds():
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline, f"the server did not respond in {SECONDS_TO_START:.0f} s"
            time.sleep(0.2)

    def kill(self) -> None:
        """Kill the server with all its processes."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _responds(self) -> bool:
        try:
            return bool(urlopen(f"{self.uri}/health", timeout=2).status == 200)
        except (URLError, OSError):
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
