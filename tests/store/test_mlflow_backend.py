"""The MLflow database is created completely or not at all, when the disk fills or the process is killed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from full_disk import at_most
from mlflow import MlflowClient
from sqlalchemy.exc import OperationalError

from alignbench.store.sync import log_run
from alignbench.store.tracker import Tracker

TRAINER = """
import sys
from pathlib import Path
from alignbench.store.mlflow_backend import connect
connect(f"sqlite:///{sys.argv[1]}/mlflow.db", Path(sys.argv[1]), "alignbench", None)
"""


def test_a_disk_that_fills_while_the_database_is_created_leaves_none(tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "one"
    with open_tracker(run_dir, enabled=False) as tracker:
        tracker.record("rl", 0, {"x": 1.0})
    with at_most(300_000), pytest.raises(OperationalError, match="disk"):
        log_run(run_dir)
    assert files_in(tmp_path) == ["mlflow.db.lock", "runs"]
    log_run(run_dir)  # the disk has room again
    assert points(run_dir) == [(0, 1.0)]
    assert not [name for name in files_in(tmp_path) if "part" in name]


def test_a_process_that_is_killed_while_it_creates_the_database_leaves_none(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db-wal").write_bytes(b"the log of a deleted database")
    maker = subprocess.Popen([sys.executable, "-c", TRAINER, str(tmp_path)])
    while sum(file.stat().st_size for file in tmp_path.glob(".mlflow.db.part/*-wal")) < 100_000:
        assert maker.poll() is None, "the database was complete before the process could be killed"
        time.sleep(0.01)
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    assert not (tmp_path / "mlflow.db").exists()
    run_dir = tmp_path / "runs" / "one"
    with open_tracker(run_dir) as tracker:
        tracker.record("rl", 0, {"x": 1.0})
    assert points(run_dir) == [(0, 1.0)]
    assert not (tmp_path / ".mlflow.db.part").exists()


def open_tracker(run_dir: Path, enabled: bool = True) -> Tracker:
    return Tracker.open(
        run_dir,
        uri=None,
        output_dir=run_dir.parents[1],
        run_name=run_dir.name,
        tags={"phase": "rl"},
        params={},
        enabled=enabled,
        resume_after=None,
    )


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def points(run_dir: Path) -> list[tuple[int, float]]:
    client = MlflowClient(f"sqlite:///{run_dir.parents[1]}/mlflow.db")
    history = client.get_metric_history((run_dir / "mlflow_run_id").read_text().strip(), "x")
    return [(point.step, point.value) for point in history]
