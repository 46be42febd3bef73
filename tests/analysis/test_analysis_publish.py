"""The report in MLflow: one run of the study, however often it is written; without MLflow it is on disk all the same.

The last test starts a real MLflow server on a free port, which takes about ten seconds.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml
from mlflow import MlflowClient
from synthetic import Studies, two_by_three

from alignbench.core import metric_names
from analysis.__main__ import main


def reports(client: MlflowClient, study: str) -> list:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.study = '{study}' and tags.phase = 'report'"))


def test_the_report_is_attached_to_one_run_of_the_study(studies: Studies, tmp_path: Path) -> None:
    study = studies.write("published", two_by_three())
    words = [f"study={study}", f"output_dir={studies.output_dir}"]
    assert main(words) == 0
    (first,) = reports(studies.client, study)
    assert main([*words, "margin=0.5"]) == 0
    (again,) = reports(studies.client, study)
    assert again.info.run_id == first.info.run_id
    assert (again.info.run_name, again.info.status) == ("report published", "FINISHED")
    assert again.info.experiment_id == studies.experiment
    home = studies.output_dir / "reports" / study
    assert {file.path for file in studies.client.list_artifacts(again.info.run_id)} == {
        "report.html",
        "report.md",
        "report.json",
    }
    for name in ("report.html", "report.json"):
        kept = studies.client.download_artifacts(again.info.run_id, name, str(tmp_path))
        assert Path(kept).read_bytes() == (home / name).read_bytes()
    first_said, now_says = (run.data.tags["mlflow.note.content"] for run in (first, again))
    assert first_said != now_says
    assert now_says == json.loads((home / "report.json").read_text())["verdict"]["sentence"]


def test_a_report_run_is_not_a_run_of_the_study(studies: Studies, capsys: pytest.CaptureFixture[str]) -> None:
    study = studies.write("counted_once", two_by_three())
    for _ in range(2):
        main([f"study={study}", f"output_dir={studies.output_dir}"])
        assert "6/6 runs" in capsys.readouterr().out


def test_a_study_that_mlflow_does_not_know_gets_no_run(studies: Studies) -> None:
    runs = two_by_three(tracked=False)
    study = studies.write("unknown_to_mlflow", runs)
    assert main([f"study={study}", f"output_dir={studies.output_dir}"]) == 0
    assert reports(studies.client, study) == []


def test_a_deleted_report_run_is_made_again(studies: Studies) -> None:
    study = studies.write("deleted_report", two_by_three())
    for _ in range(2):
        main([f"study={study}", f"output_dir={studies.output_dir}"])
        (run,) = reports(studies.client, study)
        studies.client.delete_run(run.info.run_id)


def declare_tracker(folder: Path, uri: str) -> None:
    """What the runs of a study say where their MLflow is."""
    for path in folder.glob("*/config.yaml"):
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"tracking": {"uri": uri}}))


def test_while_mlflow_is_away_the_report_is_written(
    studies: Studies, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    study = studies.write("away", two_by_three())
    declare_tracker(studies.output_dir / "runs" / study, "http://127.0.0.1:9")
    assert main([f"study={study}", f"output_dir={studies.output_dir}"]) == 0
    assert (studies.output_dir / "reports" / study / "report.html").is_file()
    told = capsys.readouterr().err
    assert "not in MLflow at http://127.0.0.1:9" in told
    assert main([f"study={study}_mistyped", f"output_dir={studies.output_dir}", "tracking_uri=http://127.0.0.1:9"]) == 2
    assert "no run of this study" in capsys.readouterr().err


@pytest.fixture
def server(tmp_path: Path):
    """An MLflow server elsewhere, with a store of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/far.db",
        "--artifacts-destination",
        str(tmp_path / "far"),
        "--host",
        "127.0.0.1",
        "--port",
        uri.split(":")[2],
        "--workers",
        "1",
    ]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(
        command,
        env={**os.environ, **quiet},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd=tmp_path,
    )
    deadline = time.monotonic() + 180
    try:
        while time.monotonic() < deadline:
            try:
                urlopen(f"{uri}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_study_on_a_server_has_its_report_there(studies: Studies, server: str, tmp_path: Path) -> None:
    """Nobody repeats the server's address: the runs declared it."""
    study = studies.write("far", two_by_three(tracked=False))
    home = studies.output_dir / "runs" / study
    declare_tracker(home, server)
    client = MlflowClient(server)
    experiment = client.create_experiment("elsewhere")
    tags = {
        metric_names.STUDY: study,
        metric_names.PHASE: "rl",
        metric_names.METHOD: "ppo",
        metric_names.SEED: "1",
        metric_names.KEY: "k",
    }
    client.create_run(experiment, tags=tags)
    for _ in range(2):
        main([f"study={study}", f"output_dir={studies.output_dir}"])
    (run,) = reports(client, study)
    assert run.info.experiment_id == experiment
    kept = client.download_artifacts(run.info.run_id, "report.html", str(tmp_path))
    assert Path(kept).read_bytes() == (studies.output_dir / "reports" / study / "report.html").read_bytes()
    assert reports(studies.client, study) == []
