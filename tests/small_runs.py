"""Small runs for tests: composed as the command line does, run in this process or in a new one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

import alignbench as ab
from alignbench.commands.environment import ENVIRONMENT
from alignbench.planning import run_plan
from alignbench.runs.compose import compose as config
from alignbench.runs.settings import resolve

ROOT = Path(__file__).parents[1]
SMALL = (
    "hardware=cpu",
    "sft.steps=2",
    "sft.batch_size=8",
    "rl.steps=2",
    "rl.rollouts_per_step=16",
    "rl.max_new_tokens=8",
    "eval.every=2",
    "eval.perplexity_rows=4",
    "data.demonstration_rows=60",
    "data.train_rows=40",
    "data.validation_rows=6",
    "data.test_rows=6",
    "model.hidden=32",
    "model.layers=1",
    "model.heads=2",
    "model.intermediate=48",
)
"""A run of a second or two with all stages."""


def run_small(output_dir: Path, *overrides: str) -> Path:
    """Run a small job in this process, by default without MLflow; returns its folder."""
    return ab.run(config(*SMALL, "tracking.enabled=false", f"output_dir={output_dir}", *overrides)).folder


def print_plan(cfg: DictConfig) -> None:
    """Print the plan of a run in this process, as plan=true does."""
    run_plan.show(resolve(cfg))


def type_in(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What happens when a person types this."""
    return subprocess.run(
        [sys.executable, "-m", "alignbench", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **ENVIRONMENT, **environment},
    )


def lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def status(folder: Path) -> dict[str, Any]:
    """How a run stands."""
    return json.loads((folder / "status.json").read_text())


def numbers(folder: Path) -> list[tuple[str, int, dict[str, float]]]:
    """Phase, step and metrics of each record of a run, without what only measures the machine."""
    return [
        (record["phase"], record["step"], {k: v for k, v in record["metrics"].items() if not k.startswith("cost/")})
        for record in lines(folder / "metrics.jsonl")
    ]
