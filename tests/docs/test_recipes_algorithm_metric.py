"""The recipes "algorithm", "variant" and "metric" of docs/extending.md, followed literally for two training steps."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from recipes import COMMAND, QUICK, follow, section
from small_runs import ROOT, numbers, status

from alignbench.commands.environment import ENVIRONMENT

ARITHMETIC = (
    "data.demonstration_rows=60",
    "data.train_rows=40",
    "data.validation_rows=6",
    "data.test_rows=6",
)
APPENDED = re.compile(r"^Append to `([^`]+)`:\n+```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDED = re.compile(r"^Add to `(\w+)` in `([^`]+)`:\n+```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def last_step(run: Path) -> dict[str, float]:
    return [metrics for stage, _, metrics in numbers(run) if stage == "rl"][-1]


def test_an_algorithm_of_three_methods(tmp_path: Path) -> None:
    (run,) = follow("## Algorithm", tmp_path, *ARITHMETIC)
    assert status(run)["status"] == "finished"
    assert status(run)["method"] == "reinforce"
    measured = last_step(run)
    assert measured["train/kl_coef"] == 0
    assert measured["group_stats/avg_group_size"] == 8
    assert "train/policy_loss" in measured
    assert "train/value_loss" not in measured


def test_a_variant_by_yaml(tmp_path: Path) -> None:
    (run,) = follow("## Variant", tmp_path, *ARITHMETIC)
    assert status(run)["status"] == "finished"
    assert status(run)["method"] == "grpo_no_std"
    algo = yaml.safe_load((run / "config.yaml").read_text())["algo"]
    assert algo["scale_by_std"] is False
    assert algo["clip_low"] == 0.2


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the packages, for a recipe that edits them."""
    for name in ("alignbench", "analysis", "conf", "sweeps"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_a_metric_of_one_function_and_one_name(copied: Path) -> None:
    text = section("## Metric")
    ((module, function),) = APPENDED.findall(text)
    with (copied / module).open("a") as file:
        file.write(f"\n\n{function}")
    ((constant, names, line),) = ADDED.findall(text)
    before = (copied / names).read_text()
    (copied / names).write_text(before.replace(f"{constant}: Final = (\n", f"{constant}: Final = (\n{line}"))
    assert (copied / names).read_text() != before
    ((command,),) = [block.splitlines() for block in COMMAND.findall(text)]
    program, *words = shlex.split(command)
    assert program == "alignbench"
    done = subprocess.run(
        [sys.executable, "-m", "alignbench", *words, *QUICK, *ARITHMETIC],
        cwd=copied,
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(copied)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (copied / "outputs" / "runs" / "single").iterdir()
    assert 0 < last_step(run)["rollout/distinct_fraction"] <= 1
