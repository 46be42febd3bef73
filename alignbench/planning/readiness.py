"""What must be there before a run can begin; all that is missing is found, not only the first of it."""

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
from alignbench.planning.text import gib
from alignbench.runs.run_data import RunData
from alignbench.runs.settings import RunSettings
from alignbench.runs.shared_models import SharedModels

Found = TypeVar("Found")
WEB = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306}
"""Where servers of these kinds listen unless the address says otherwise."""


class Readiness:
    """Goes on after each problem, and leaves out only what could not be asked because of it."""

    def __init__(self, wrong: Mapping[str, UserError]) -> None:
        """`wrong` are the sections of a config that could not be built, and why."""
        self.problems = [str(error) for error in wrong.values()]
        self.broken = set(wrong)

    def attempt(self, what: Callable[[], Found], *parts: str, breaks: str) -> Found | None:
        """What it returns; None when one of the parts that it stands on is broken, or when it breaks one itself."""
        if self.broken & set(parts):
            return None
        try:
            return what()
        except (UserError, OSError) as error:
            self.problems.append(str(error))
            self.broken.add(breaks)
            return None

    def check(self, job: RunSettings, run_data: RunData, shared: SharedModels) -> None:
        """Everything that can be asked before anything is trained."""
        self.attempt(lambda: job.rl.prompts_per_step(job.algo), "rl", "algo", breaks="rl")
        self.attempt(lambda: job.hardware.require(), "hardware", breaks="hardware")
        self.attempt(lambda: job.model.require(), "model", breaks="model")
        self.attempt(lambda: run_data.all_prompts, "data", breaks="data")
        self.attempt(lambda: run_data.text, "model", "data", "sft", breaks="model")
        for each in run_data.checks():
            self.attempt(each, "model", "data", "reward", "rl", "eval", "sft", breaks="rows")
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
        self.attempt(lambda: require_writable(Path(job.output_dir)), "output_dir", breaks="output_dir")
        self.attempt(
            lambda: require_tracking(job.tracking.uri if job.tracking.enabled else None), "tracking", breaks="tracking"
        )


def require_writable(folder: Path) -> None:
    """Raise UserError where a folder can be neither written to nor made."""
    there = nearest(folder)
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"output_dir={folder}: {there} is no folder that you may write to; choose another one")


def require_room(folder: Path, wanted: int) -> None:
    """Raise UserError where fewer bytes are free than wanted."""
    free = shutil.disk_usage(nearest(folder)).free
    if wanted > free:
        raise UserError(
            f"output_dir={folder}: {gib(wanted)} GiB would be written and {gib(free)} are free there: make "
            "room, choose another folder, or keep no checkpoints with rl.checkpoint_every=0"
        )


def require_tracking(uri: str | None) -> None:
    """Raise UserError, within seconds, where a tracking server does not answer or its file cannot be made."""
    kind, _, _ = (uri or "").partition("://")
    if uri and kind.split("+")[0] in WEB:
        _require_server(uri, WEB[kind.split("+")[0]])
    elif uri and kind in ("sqlite", "file"):
        place = Path(urlsplit(uri).path.removeprefix("/" if kind == "sqlite" else ""))
        require = nearest(place.parent)
        if not os.access(require, os.W_OK):
            raise UserError(f"tracking.uri={uri}: {require} cannot be written to")


def nearest(folder: Path) -> Path:
    """The folder itself, or the innermost one around it that is there."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())


def _require_server(uri: str, port: int) -> None:
    place = urlsplit(uri)
    answers: list[str] = []
    # A thread, because a time limit on the connection does not cover looking up the host's name.
    asking = threading.Thread(
        target=lambda: answers.append(_connect(place.hostname or "", place.port or port)), daemon=True
    )
    asking.start()
    asking.join(TIMEOUT + 0.5)
    why = answers[0] if answers else f"no answer within {TIMEOUT:g} s"
    if why:
        raise UserError(
            f"tracking.uri={uri} cannot be reached ({why}): start the server, or set tracking.uri=null for "
            "a file under output_dir"
        )


def _connect(host: str, port: int) -> str:
    """Why nobody listens there; empty when somebody does."""
    try:
        socket.create_connection((host, port), timeout=TIMEOUT).close()
    except OSError as error:
        return str(error)
    return ""
