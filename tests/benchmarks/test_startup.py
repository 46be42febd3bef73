"""What is imported when: nothing heavy before it is needed, and nothing that a command has no use for."""

import gc
import re
import subprocess
import sys
from pathlib import Path

import pytest

from alignbench.core import gc_pause
from benchmarks.startup import of_records, of_starts, share

ROOT = Path(__file__).parents[2]
TRAINING = {"torch", "transformers"}
REPORT = {"mlflow", "sqlalchemy", "pandas", "matplotlib", "statsmodels", "datasets"}
"""For the report, for data of the hub, and for the process that logs to MLflow: no run itself needs them."""
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


def imported(*typed: str) -> tuple[int, set[str]]:
    """The exit code of a command, and the packages and modules without a dot that it imported."""
    command = [sys.executable, "-X", "importtime", "-m", "alignbench", *typed]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, set(re.findall(r"^import time:.*\| +(\w+)$", done.stderr, flags=re.MULTILINE))


@pytest.mark.parametrize(("typed", "code"), [("--help", 0), ("rl.stepz=3", 1), ("algo=ppoo", 1)])
def test_what_is_mistyped_is_told_before_anything_heavy_is_imported(typed: str, code: int) -> None:
    ended, modules = imported(typed)
    assert ended == code
    assert "hydra" in modules, "or this test would show nothing"
    assert not modules & (TRAINING | REPORT)


@pytest.mark.parametrize("typed", ["rl.steps=-1", "rl.minibatches=3", "model.path=/nowhere"])
def test_what_cannot_be_is_told_before_transformers_is_imported(typed: str, tmp_path: Path) -> None:
    ended, modules = imported(typed, f"output_dir={tmp_path}")
    assert ended == 2
    assert not modules & {"transformers", *REPORT}


def test_a_run_imports_neither_mlflow_nor_what_reports_need(tmp_path: Path) -> None:
    ended, modules = imported(*SMALL, f"output_dir={tmp_path}")
    assert ended == 0
    assert modules >= TRAINING
    assert not modules & REPORT
    assert list(tmp_path.glob("runs/*/*/mlflow_run_id")), "the run was logged to MLflow"


def test_garbage_is_collected_again_when_all_is_imported() -> None:
    try:
        gc_pause.rest()
        assert not gc.isenabled()
        gc_pause.wake()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0
    finally:
        gc.enable()
        gc.unfreeze()


def test_where_nothing_rests_nothing_is_frozen() -> None:
    before = gc.get_freeze_count()
    gc_pause.wake()
    assert gc.get_freeze_count() == before


def test_the_page_tells_parts_from_the_times_at_which_they_were_over() -> None:
    def run(*ends: float) -> dict:
        return {"marks": [["a", ends[0], 0.5, ["torch"]], ["b", ends[1], 0.75, []]]}

    lines = of_starts([run(1, 3), run(2, 3), run(1, 4)], run(2, 8)).splitlines()
    assert lines[2:] == [
        "| a | 1.00 (1.00 to 2.00) | 0.50 (0.50 to 0.50) | 2.00 | torch |",
        "| b | 2.00 (1.00 to 3.00) | 0.25 (0.25 to 0.25) | 6.00 |  |",
        "| **until the first step** | **3.00 (3.00 to 4.00)** | **0.75 (0.75 to 0.75)** | **8.00** |  |",
    ]


def test_the_share_of_the_records_is_of_the_whole_run() -> None:
    run = {"records": {"numbers": 0.1, "checkpoints": 0.3}, "whole": 20.0, "follower": 1.5}
    assert share(run) == pytest.approx(0.02)
    told = of_records({"ppo": [run]}, {"ppo": [{**run, "whole": 16.0}]})
    assert "| **share of the run** | **2.0% (2.0% to 2.0%)** |" in told
    assert "| times the same run without MLflow | 1.25 (1.25 to 1.25) |" in told
