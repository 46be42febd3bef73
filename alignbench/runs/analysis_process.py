"""The analysis, in a process of its own: asked for the report of a study, and before it for what it could show."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def checkout() -> Path | None:
    """The checkout this package runs from, or None when it was installed from a wheel."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").exists() and (root / "conf" / "config.yaml").exists() else None


def report(study: str, output_dir: str) -> int:
    """Write the report of a study. Returns the exit code of the analysis."""
    return _ask("", [f"study={study}", f"output_dir={output_dir}"]).returncode


def before_after(before: Path, after: Path, to: Path) -> int:
    """Compare two files of answers. Returns the exit code of the analysis."""
    return _ask(".before_after", [f"before={before}", f"after={after}", f"to={to}"]).returncode


def forecast(question: dict[str, Any]) -> dict[str, Any]:
    """What seeds can find and what a judge would cost; question and answer as in analysis/forecast.py."""
    done = _ask(".forecast", [], input=json.dumps(question), stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0, "the analysis could not answer; it said why above"
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def package() -> str:
    """The name of the analysis package: top-level in a checkout, inside alignbench in a wheel."""
    return "alignbench.analysis" if checkout() is None else "analysis"


def _ask(module: str, words: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
    root = checkout()
    path = os.pathsep.join([str(root or ""), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    command = [sys.executable, "-m", f"{package()}{module}", *words]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False, **options)
