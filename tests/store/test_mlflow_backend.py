"""MLflow's database is there whole or not at all: a disk that fills, or a kill, in the middle of its making."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from full_disk import at_most
from mlflow import MlflowClient

from alignbench.store.mlflow_run import MLflowRun
from alignbench.store.tracker import Tracker

TRAINER = """
import sys
from pathlib import Path
from alignbench.store.mlflow_backend import connect
connect(f"sqlite:///{sys.argv[1]}/mlflow.db", Path(sys.argv[1]), "alignbench", None)
"""


def test_a_disk_that_fills_while_the_database_is_made_leaves_none_and_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alignbench.store.tracker.FarRun", MLflowRun)  # in this process, whose disk it is that fills
    run_dir, deadline = tmp_path / "runs" / "one", time.monotonic() + 60
    with at_most(300_000):
        tracker = Tracker.open(
            run_dir, uri=None, output_dir=tmp_path, run_name="one", tags={"phase": "rl"}, params={}, resume_after=None
        )
        tracker.record("rl", 0, {"x": 1.0})
        while not caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)
    assert f"MLflow at sqlite:///{tmp_path}/mlflow.db fails" in caplog.text
    assert left_in(tmp_path) == ["mlflow.db.lock", "runs"]
    tracker.close()  # there is room again
    assert told(tmp_path, run_dir) == [(0, 1.0)]
    assert not [name for name in left_in(tmp_path) if "part" in name]


def test_a_process_that_is_killed_while_it_makes_the_database_leaves_it_to_the_next(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db-wal").write_bytes(b"the log of a database that somebody deleted")
    maker = subprocess.Popen([sys.executable, "-c", TRAINER, str(tmp_path)])
    while sum(file.stat().st_size for file in tmp_path.glob(".mlflow.db.part/*-wal")) < 100_000:
        assert maker.poll() is None, "it was made before it could be killed"
        time.sleep(0.01)
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    assert not (tmp_path / "mlflow.db").exists()
    run_dir = tmp_path / "runs" / "one"
    with Tracker.open(
        run_dir, uri=None, output_dir=tmp_path, run_name="one", tags={"phase": "rl"}, params={}, resume_after=None
    ) as tracker:
        tracker.record("rl", 0, {"x": 1.0})
    assert told(tmp_path, run_dir) == [(0, 1.0)]
    assert not (tmp_path / ".mlflow.db.part").exists()


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def told(outputs: Path, run_dir: Path) -> list[tuple[int, float]]:
    client = MlflowClient(f"sqlite:///{outputs}/mlflow.db")
    history = client.get_metric_history((run_dir / "mlflow_run_id").read_text().strip(), "x")
    return [(point.step, point.value) for point in history]
