"""Check the requirements of a run before it starts, and collect all problems instead of stopping at the first."""

import os
import shutil
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from alignbench.core.errors import UserError
from alignbench.core.hub import TIMEOUT
from alignbench.planning.text import format_gib
from alignbench.runs.run_data import RunData
from alignbench.runs.settings import RunSettings
from alignbench.runs.shared_models import SharedModels

Result = TypeVar("Result")
DEFAULT_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}
"""Port of a tracking server by URL scheme, where the URL has none."""


class Readiness:
    """Collects problems. A check that depends on a section which already failed is skipped."""

    def __init__(self, errors: Mapping[str, UserError]) -> None:
        """`errors`: the sections of the config that could not be built, with their errors."""
        self.problems = [str(error) for error in errors.values()]
        self.broken = set(errors)

    def attempt(self, action: Callable[[], Result], *requires: str, breaks: str) -> Result | None:
        """Result of `action`; None if a required section is broken or `action` fails, which breaks section `breaks`."""
        if self.broken & set(requires):
            return None
        try:
            return action()
        except (UserError, OSError) as error:
            self.problems.append(str(error))
            self.broken.add(breaks)
            return None

    def check(self, job: RunSettings, run_data: RunData, shared: SharedModels) -> None:
        """Run every check that is possible before training; the failed ones are added to `problems`."""
        self.attempt(lambda: job.rl.prompts_per_step(job.algo), "rl", "algo", breaks="rl")
        self.attempt(lambda: job.hardware.require(), "hardware", breaks="hardware")
        self.attempt(lambda: job.model.require(), "model", breaks="model")
        self.attempt(lambda: run_data.all_prompts, "data", breaks="data")
        self.attempt(lambda: run_data.text, "model", "data", "sft", breaks="model")
        for check in run_data.checks():
            self.attempt(check, "model", "data", "reward", "rl", "eval", "sft", breaks="rows")
        self.attempt(
            lambda: shared.check(),
            "rows",
            "model",
            "data",
            "algo",
            "reward",
            "reward_model",
            "sft",
            "hardware",
            breaks="shared",
        )
        self.attempt(lambda: check_writable(Path(job.output_dir)), "output_dir", breaks="output_dir")
        self.attempt(
            lambda: check_tracking(job.tracking.uri if job.tracking.enabled else None), "tracking", breaks="tracking"
        )


def check_writable(folder: Path) -> None:
    """Raise UserError if the folder is not writable and cannot be created."""
    existing = nearest_existing(folder)
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"output_dir={folder}: {existing} is not a writable folder; choose another one")


def check_disk_space(folder: Path, required: int) -> None:
    """Raise UserError if fewer than `required` bytes are free."""
    free = shutil.disk_usage(nearest_existing(folder)).free
    if required > free:
        raise UserError(
            f"output_dir={folder}: {format_gib(required)} GiB are required and {format_gib(free)} GiB are free: free "
            "disk space, choose another folder, or disable checkpoints with rl.checkpoint_every=0"
        )


def check_tracking(uri: str | None) -> None:
    """Raise UserError, within seconds, if a tracking server does not respond or its file cannot be created."""
    kind, _, _ = (uri or "").partition("://")
    if uri and kind.split("+")[0] in DEFAULT_PORTS:
        _check_server(uri, DEFAULT_PORTS[kind.split("+")[0]])
    elif uri and kind in ("sqlite", "file"):
        file = Path(urlsplit(uri).path.removeprefix("/" if kind == "sqlite" else ""))
        existing = nearest_existing(file.parent)
        if not os.access(existing, os.W_OK):
            raise UserError(f"tracking.uri={uri}: {existing} is not writable")


def nearest_existing(folder: Path) -> Path:
    """The folder itself, or its nearest parent that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _check_server(uri: str, port: int) -> None:
    address = urlsplit(uri)
    results: list[str] = []
    # In a thread, because the timeout of the connection does not cover the DNS lookup.
    thread = threading.Thread(
        target=lambda: results.append(_connection_error(address.hostname or "", address.port or port)), daemon=True
    )
    thread.start()
    thread.join(TIMEOUT + 0.5)
    error = results[0] if results else f"no response within {TIMEOUT:g} s"
    if error:
        raise UserError(
            f"tracking.uri={uri} cannot be reached ({error}): start the server, or set tracking.uri=null for "
            "a file under output_dir"
        )


def _connection_error(host: str, port: int) -> str:
    """The error of a connection attempt; empty if it succeeds."""
    try:
        socket.create_connection((host, port), timeout=TIMEOUT).close()
    except OSError as error:
        return str(error)
    return ""
