"""Runs the analysis in a separate process: report of a study, comparison of two models, forecast of a study."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def checkout() -> Path | None:
    """The checkout that this package runs from; None if it was installed from a wheel."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").exists() and (root / "conf" / "config.yaml").exists() else None


def report(study: str, output_dir: str) -> int:
    """Write the report of a study. Returns the exit code of the analysis."""
    return _run_analysis("", [f"study={study}", f"output_dir={output_dir}"]).returncode


def before_after(before: Path, after: Path, to: Path) -> int:
    """Compare two files of answers. Returns the exit code of the analysis."""
    return _run_analysis(".before_after", [f"before={before}", f"after={after}", f"to={to}"]).returncode


def forecast(question: dict[str, Any]) -> dict[str, Any]:
    """Detectable effects and cost of the LLM judge of a planned study; JSON formats as in analysis/forecast.py."""
    done = _run_analysis(".forecast", [], input=json.dumps(question), stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0, "the analysis failed; its error is printed above"
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def package() -> str:
    """The name of the analysis package: top-level in a checkout, inside alignbench in a wheel."""
    return "alignbench.analysis" if checkout() is None else "analysis"


def _run_analysis(module: str, arguments: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
    root = checkout()
    path = os.pathsep.join([str(root or ""), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    command = [sys.executable, "-m", f"{package()}{module}", *arguments]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False, **options)
