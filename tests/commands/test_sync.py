"""`alignbench sync` after a crash: marks dead runs as interrupted and logs what MLflow lacks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from mlflow import MlflowClient

from alignbench.commands import sync
from alignbench.store.mlflow_run import RUN_ID
from alignbench.store.run_status import RunStatus, in_use, reap
from alignbench.store.sync import complete_run
from alignbench.store.tracker import Tracker
from alignbench.store.tracking_info import TRACKING, is_behind

WHO = {"key": "k", "study": "s", "method": "ppo", "model": "tiny", "seed": 1}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with a database."""
    folder = tmp_path_factory.mktemp("outputs")
    opened(folder / "first", folder).close()
    return folder


def opened(run_dir: Path, outputs: Path, **others: object) -> Tracker:
    return Tracker.open(
        run_dir,
        output_dir=outputs,
        run_name=run_dir.name,
        tags={"phase": "rl"},
        params={},
        **{"uri": None, "resume_after": None, **others},
    )


def test_a_dead_run_is_marked_interrupted_and_an_active_one_is_skipped(tmp_path: Path) -> None:
    with RunStatus(tmp_path / "alive", WHO, "bitwise"):
        (tmp_path / "dead").mkdir()
        (tmp_path / "dead" / "status.json").write_text((tmp_path / "alive" / "status.json").read_text())
        script = "from alignbench.commands import sync; import sys; sys.exit(sync.main(sys.argv[1:]))"
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
        assert done.stdout == f"{tmp_path}/dead: marked interrupted\n"
        assert json.loads((tmp_path / "alive" / "status.json").read_text())["status"] == "running"
    dead = json.loads((tmp_path / "dead" / "status.json").read_text())
    assert dead["status"] == "interrupted"
    assert "killed" in dead["reason"]
    assert not reap(tmp_path / "dead")
    assert json.loads((tmp_path / "alive" / "status.json").read_text())["status"] == "finished"


def test_a_lock_is_visible_to_another_process_while_it_is_held(tmp_path: Path) -> None:
    assert not in_use(tmp_path)
    with FileLock(tmp_path / ".lock"):
        script = (
            "import sys, pathlib; from alignbench.store.run_status import in_use; "
            "print(in_use(pathlib.Path(sys.argv[1])))"
        )
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
        assert done.stdout == "True\n"
    assert not in_use(tmp_path)


def test_missing_records_are_logged_once(outputs: Path) -> None:
    run_dir = outputs / "away"
    (outputs / "nowhere").write_text("a file where a folder should be")
    with opened(run_dir, outputs, uri=f"sqlite:///{outputs}/nowhere/mlflow.db") as tracker:
        tracker.record("rl", 0, {"x": 1.0})
    assert is_behind(run_dir)
    assert sync.main([str(run_dir)]) == 1, "the database is still missing"
    info = json.loads((run_dir / TRACKING).read_text())
    (run_dir / TRACKING).write_text(json.dumps({**info, "uri": f"sqlite:///{outputs}/mlflow.db"}))
    assert complete_run(run_dir) == "logged to MLflow"
    assert complete_run(run_dir) is None
    client = MlflowClient(f"sqlite:///{outputs}/mlflow.db")
    history = client.get_metric_history((run_dir / RUN_ID).read_text().strip(), "x")
    assert [(m.step, m.value) for m in history] == [(0, 1.0)]


def test_a_run_without_tracking_is_not_logged(outputs: Path) -> None:
    opened(outputs / "quiet", outputs, enabled=False).close()
    assert not is_behind(outputs / "quiet")


def test_an_mlflow_run_is_found_by_its_ticket_when_its_id_was_not_written(outputs: Path) -> None:
    """Killed right after MLflow created the run: the file still holds the ticket."""
    run_dir = outputs / "cut"
    opened(run_dir, outputs).close()
    client = MlflowClient(f"sqlite:///{outputs}/mlflow.db")
    run_id = (run_dir / RUN_ID).read_text().strip()
    (run_dir / RUN_ID).write_text(f"ticket {client.get_run(run_id).data.tags['ticket']}\n")
    opened(run_dir, outputs).close()
    assert (run_dir / RUN_ID).read_text().strip() == run_id
    (run_dir / RUN_ID).write_text("ticket of-a-run-that-was-never-created\n")
    opened(run_dir, outputs).close()
    assert (run_dir / RUN_ID).read_text().strip() != run_id
