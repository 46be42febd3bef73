"""Imports by command: heavy packages only where they are needed; tables of the start-up benchmark."""

import gc
import re
import subprocess
import sys
from pathlib import Path

import pytest

from alignbench.core import gc_pause
from benchmarks.startup import logging_share, logging_table, start_table

ROOT = Path(__file__).parents[2]
TRAINING = {"torch", "transformers"}
REPORT = {"mlflow", "sqlalchemy", "pandas", "matplotlib", "statsmodels", "datasets"}
"""For the report, for data of the hub and for the process that logs to MLflow; a run imports none of them."""
SMALL = (
    "sft.steps=1",
    "rl.steps=1",
    "rl.rollouts_per_step=16",
    "data.demonstration_rows=200",
    "data.train_rows=50",
    "data.test_rows=4",
    "data.validation_rows=4",
    "model.hidden=32",
    "model.layers=1",
)


def run_and_list_imports(*arguments: str) -> tuple[int, set[str]]:
    """The exit code of a command, and the top-level packages and modules that it imported."""
    command = [sys.executable, "-X", "importtime", "-m", "alignbench", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, set(re.findall(r"^import time:.*\| +(\w+)$", done.stderr, flags=re.MULTILINE))


@pytest.mark.parametrize(("argument", "code"), [("--help", 0), ("rl.stepz=3", 2), ("algo=ppoo", 2)])
def test_mistyped_arguments_are_reported_before_heavy_imports(argument: str, code: int) -> None:
    exit_code, modules = run_and_list_imports(argument)
    assert exit_code == code
    assert "alignbench" in modules, "the import log was read"
    assert not modules & (TRAINING | REPORT)


@pytest.mark.parametrize("argument", ["rl.steps=-1", "rl.minibatches=3", "model.path=/nowhere"])
def test_invalid_values_are_reported_before_transformers_is_imported(argument: str, tmp_path: Path) -> None:
    exit_code, modules = run_and_list_imports(argument, f"output_dir={tmp_path}")
    assert exit_code == 2
    assert not modules & {"transformers", *REPORT}


def test_run_imports_neither_mlflow_nor_packages_of_the_report(tmp_path: Path) -> None:
    exit_code, modules = run_and_list_imports(*SMALL, f"output_dir={tmp_path}")
    assert exit_code == 0
    assert modules >= TRAINING
    assert not modules & REPORT
    assert list(tmp_path.glob("runs/*/*/mlflow_run_id")), "the run was logged to MLflow"


def test_garbage_collection_is_enabled_again_after_imports() -> None:
    try:
        gc_pause.pause()
        assert not gc.isenabled()
        gc_pause.resume()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.enable()
        gc.unfreeze()


def test_objects_are_not_frozen_when_collection_was_not_disabled() -> None:
    before = gc.get_freeze_count()
    gc_pause.resume()
    assert gc.get_freeze_count() == before


def test_page_computes_seconds_of_parts_from_their_end_times() -> None:
    def run(*ends: float) -> dict:
        return {"marks": [["a", ends[0], 0.5, ["torch"]], ["b", ends[1], 0.75, []]]}

    lines = start_table([run(1, 3), run(2, 3), run(1, 4)], run(2, 8)).splitlines()
    assert lines[2:] == [
        "| a | 1.00 (1.00 to 2.00) | 0.50 (0.50 to 0.50) | 2.00 | torch |",
        "| b | 2.00 (1.00 to 3.00) | 0.25 (0.25 to 0.25) | 6.00 |  |",
        "| **until the first step** | **3.00 (3.00 to 4.00)** | **0.75 (0.75 to 0.75)** | **8.00** |  |",
    ]


def test_logging_share_is_relative_to_the_whole_run() -> None:
    run = {"records": {"numbers": 0.1, "checkpoints": 0.3}, "whole": 20.0, "follower": 1.5}
    assert logging_share(run) == pytest.approx(0.02)
    page = logging_table({"ppo": [run]}, {"ppo": [{**run, "whole": 16.0}]})
    assert "| **share of the run** | **2.0% (2.0% to 2.0%)** |" in page
    assert "| ratio to the same run without MLflow | 1.25 (1.25 to 1.25) |" in page
