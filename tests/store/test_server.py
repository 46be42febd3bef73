"""A real MLflow server on loopback, killed in the middle of a run and started again: nothing is lost or logged twice.

The server runs over SQLite, which takes half a minute, and over PostgreSQL where ALIGNBENCH_POSTGRES names a database
that may be written to, such as postgresql://user:password@127.0.0.1:5432/mlflow (the driver is psycopg).
"""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from mlflow import MlflowClient

from alignbench.commands import sync
from alignbench.store.tracker import Tracker
from alignbench.store.tracking_info import is_behind
from validation.faults.mlflow_server import Server

POSTGRES = os.environ.get("ALIGNBENCH_POSTGRES")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No retries when the server is down."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")


@pytest.mark.parametrize(
    "database",
    [
        pytest.param(None, id="sqlite"),
        pytest.param(
            POSTGRES,
            id="postgresql",
            marks=pytest.mark.skipif(POSTGRES is None, reason="ALIGNBENCH_POSTGRES names no database"),
        ),
    ],
)
def test_a_server_that_is_killed_and_restarted_has_each_point_once(tmp_path: Path, database: str | None) -> None:
    late, later = tmp_path / "runs" / "late", tmp_path / "runs" / "later"
    with Server(tmp_path, database) as server:
        for run_dir, restarts in ((late, True), (later, False)):
            with opened(run_dir, server) as tracker:
                for step in range(20):
                    tracker.record("rl", step, {"rewards/mean": step / 2, "eval/accuracy": step / 4})
                    if step == 9:
                        server.kill()
                    if step == 15 and restarts:
                        server.start()
            assert is_behind(run_dir) is not restarts
            if not restarts:
                server.start()
        assert sync.main([str(tmp_path)]) == 0
        assert not is_behind(later)
        sync.main([str(tmp_path)])
        for run_dir in (late, later):
            assert points(server, run_dir) == written(run_dir)


def opened(run_dir: Path, server: Server) -> Tracker:
    return Tracker.open(
        run_dir,
        uri=server.uri,
        output_dir=run_dir.parents[1],
        run_name=run_dir.name,
        tags={"phase": "rl"},
        params={"a": 1},
        resume_after=None,
    )


def written(run_dir: Path) -> Counter:
    records = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return Counter((name, r["step"], value) for r in records for name, value in r["metrics"].items())


def points(server: Server, run_dir: Path) -> Counter:
    client, run_id = MlflowClient(server.uri), (run_dir / "mlflow_run_id").read_text().strip()
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"a": "1"}
    named = client.search_runs([run.info.experiment_id], f"attributes.run_name = '{run_dir.name}'")
    assert [found.info.run_id for found in named] == [run_id], "one MLflow run for one run"
    history = (m for name in run.data.metrics for m in client.get_metric_history(run_id, name))
    return Counter((m.key, m.step, m.value) for m in history)
