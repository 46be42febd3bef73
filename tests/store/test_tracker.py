"""The tracker on a real SQLite MLflow: each point of metrics.jsonl is logged once, and training never waits."""

import json
import logging
import math
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

import alignbench
from alignbench.core.errors import UserError
from alignbench.store.follower import FOLLOWER
from alignbench.store.sync import log_run
from alignbench.store.tracker import Tracker

ROOT = Path(alignbench.__file__).parents[1]
TAGS = {"phase": "rl", "method": "ppo", "seed": "42"}
PARAMS = {"algo.lr": 3e-6, "algo.name": "ppo", "long": "x" * 9000, **{f"setting{i}": i for i in range(150)}}

TRAINER = """
import sys, time
from pathlib import Path
from alignbench.store.tracker import Tracker
run_dir, output_dir, steps, wait = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
with Tracker.open(run_dir, uri=None, output_dir=output_dir, run_name=run_dir.name, tags={"phase": "rl"},
                  params={"a": 1}, resume_after=None) as tracker:
    for step in range(steps):
        tracker.record("rl", step, {"rewards/mean": step / 2, "eval/accuracy": step / 4})
    print("recorded", flush=True)
    time.sleep(wait)
"""


def start_trainer(run_dir, output_dir, steps, wait=0.0):
    command = [sys.executable, "-c", TRAINER, str(run_dir), str(output_dir), str(steps), str(wait)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """An output folder with a space in its name and an existing database."""
    folder = tmp_path_factory.mktemp("out puts")
    open_tracker(folder / "first", folder).close()
    return folder


@pytest.fixture
def run_dir(outputs, request):
    return outputs / "runs" / request.node.name


def open_tracker(run_dir, output_dir, resume_after=None, **others):
    settings = {"uri": None, "run_name": run_dir.name, "tags": TAGS, "params": PARAMS, **others}
    return Tracker.open(run_dir, output_dir=output_dir, resume_after=resume_after, **settings)


def lines(run_dir, name="metrics.jsonl"):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in (run_dir / name).read_text().splitlines()]


def points(records):
    return Counter(
        (name, record["step"], value, int(record["time"] * 1000))
        for record in records
        for name, value in record["metrics"].items()
    )


class LoggedRun:
    """A run as MLflow has it."""

    def __init__(self, run_dir, uri):
        from mlflow import MlflowClient

        self.client = MlflowClient(uri)
        self.id = (run_dir / "mlflow_run_id").read_text().strip()
        self.run = self.client.get_run(self.id)

    def history(self, name):
        return self.client.get_metric_history(self.id, name)

    def points(self):
        return Counter(
            (name, m.step, m.value, m.timestamp) for name in self.run.data.metrics for m in self.history(name)
        )

    def files(self, folder=None):
        return [file.path for file in self.client.list_artifacts(self.id, folder)]

    def text(self, path, to):
        return Path(self.client.download_artifacts(self.id, path, str(to))).read_text()


def logged(run_dir, outputs):
    return LoggedRun(run_dir, f"sqlite:///{outputs}/mlflow.db")


def count_points(run_dir, outputs):
    """How many points MLflow has, of a run that may not exist there yet."""
    id_file = run_dir / "mlflow_run_id"
    exists = id_file.exists() and not id_file.read_text().startswith("ticket")
    return len(logged(run_dir, outputs).points()) if exists else 0


def test_mlflow_has_exactly_the_points_of_the_file(outputs, run_dir):
    with open_tracker(run_dir, outputs) as tracker:
        for step in range(60):
            tracker.record("rl", step, {f"train/m{i}": step * 0.1 + i for i in range(40)})
            assert len(lines(run_dir)) == step + 1
    run = logged(run_dir, outputs)
    assert len(run.points()) == 2400
    assert run.points() == points(lines(run_dir))
    assert run.run.info.status == "FINISHED"
    assert run.run.info.run_name == run_dir.name
    assert TAGS.items() <= run.run.data.tags.items()
    assert run.run.data.params["algo.lr"] == "3e-06"
    assert len(run.run.data.params["long"]) == 6000
    assert len(run.run.data.params) == len(PARAMS)


def test_artifacts_are_stored_beside_the_database(outputs, run_dir, tmp_path):
    with open_tracker(run_dir, outputs) as tracker:
        (run_dir / "eval.jsonl").write_text('{"prompt_id": 1}\n')
        tracker.artifact(run_dir / "eval.jsonl")
        tracker.artifact(run_dir / "eval.jsonl", "copies")
        tracker.table("samples/step 3", [{"prompt": "2+2", "score": 1.0}, {"prompt": "2+3", "score": math.nan}])
        tracker.histogram("rewards/score", 3, [0.0, 0.0, 1.0, math.inf])
        tracker.dataset("arithmetic", "ab" * 32, "train")
    run = logged(run_dir, outputs)
    assert run.text("eval.jsonl", tmp_path) == '{"prompt_id": 1}\n'
    assert run.files("copies") == ["copies/eval.jsonl"]
    assert run.run.info.artifact_uri.startswith((outputs / "mlartifacts").as_uri())
    table = json.loads(run.text("tables/samples_step_3.json", tmp_path))
    assert table == {"columns": ["prompt", "score"], "data": [["2+2", 1.0], ["2+3", None]]}
    assert json.loads(run.run.data.tags["mlflow.loggedArtifacts"]) == [
        {"path": "tables/samples_step_3.json", "type": "table"}
    ]
    picture = run.text("histograms/rewards_score-000003.svg", tmp_path)
    assert "rewards/score, step 3 (n = 4, 1 not finite)" in picture
    assert picture.count("<title>2</title>") == picture.count("<title>1</title>") == 1
    (used,) = run.run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("arithmetic", ("ab" * 32)[:36])


def test_nan_and_infinities_are_logged(outputs, run_dir):
    with open_tracker(run_dir, outputs) as tracker:
        tracker.record("rl", 0, {"train/loss": math.nan, "train/ratio": -math.inf, "train/kl": 0.5})
    (record,) = lines(run_dir)
    assert record["metrics"] == {"train/loss": None, "train/ratio": None, "train/kl": 0.5}
    assert record["not_finite"] == {"train/loss": "nan", "train/ratio": "-inf"}
    run = logged(run_dir, outputs)
    assert math.isnan(run.history("train/loss")[0].value)
    assert run.history("train/ratio")[0].value < -1e308


def test_a_name_that_mlflow_refuses_is_replaced(outputs, run_dir):
    with open_tracker(run_dir, outputs) as tracker:
        tracker.record("rl", 0, {"rewards/component/len>5": 1.0, "rewards/mean": 2.0})
    assert logged(run_dir, outputs).run.data.metrics == {"rewards/component/len_5": 1.0, "rewards/mean": 2.0}


def test_a_killed_run_continues_in_the_same_mlflow_run_without_duplicate_steps(outputs, run_dir):
    trainer = start_trainer(run_dir, outputs, steps=10, wait=600)
    assert trainer.stdout.readline() == "recorded\n"
    deadline = time.monotonic() + 60
    while count_points(run_dir, outputs) < 20 and time.monotonic() < deadline:
        time.sleep(0.2)
    trainer.send_signal(signal.SIGKILL)
    trainer.communicate(timeout=30)
    before = logged(run_dir, outputs)
    assert before.run.info.status == "RUNNING"
    assert [m.step for m in before.history("rewards/mean")] == list(range(10))
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "rl", "step": 10, "met')

    with open_tracker(run_dir, outputs, resume_after=5) as tracker:
        assert [record["step"] for record in lines(run_dir)] == list(range(6))
        for step in range(6, 13):
            tracker.record("rl", step, {"rewards/mean": step / 2, "eval/accuracy": step / 4})
    assert [record["step"] for record in lines(run_dir)] == list(range(13))
    after = logged(run_dir, outputs)
    assert after.id == before.id
    assert after.run.info.status == "FINISHED"
    for name in ("rewards/mean", "eval/accuracy"):
        assert [m.step for m in after.history(name)] == list(range(13))


def test_resuming_removes_the_records_after_the_checkpoint(outputs, run_dir):
    with open_tracker(run_dir, outputs, enabled=False) as tracker:
        for phase, step in [("sft", 90), ("rl", 0), ("evaluate", 0), ("rl", 1), ("rl", 2), ("evaluate", 2)]:
            tracker.record(phase, step, {"x": 1.0})
    open_tracker(run_dir, outputs, resume_after=1, enabled=False).close()
    kept = [(record["phase"], record["step"]) for record in lines(run_dir)]
    assert kept == [("sft", 90), ("rl", 0), ("evaluate", 0), ("rl", 1)]
    assert not (run_dir / "mlflow_run_id").exists()


def test_starting_over_keeps_the_earlier_records_in_another_file(outputs, run_dir):
    with open_tracker(run_dir, outputs) as tracker:
        tracker.record("rl", 0, {"x": 1.0})
    first = logged(run_dir, outputs).id
    with open_tracker(run_dir, outputs) as tracker:
        assert lines(run_dir) == []
        tracker.record("rl", 0, {"x": 1.0})
        tracker.record("rl", 1, {"x": 2.0})
    assert len(lines(run_dir, "metrics.previous.jsonl")) == 1
    run = logged(run_dir, outputs)
    assert run.id == first
    assert [(m.step, m.value) for m in run.history("x")] == [(0, 1.0), (1, 2.0)]


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")]
)
def test_the_status_of_the_run_is_logged(outputs, run_dir, error, status):
    def train():
        with open_tracker(run_dir, outputs) as tracker:
            tracker.record("rl", 0, {"x": 1.0})
            raise error

    with pytest.raises(error):
        train()
    run = logged(run_dir, outputs)
    assert run.run.info.status == status
    assert run.run.data.metrics == {"x": 1.0}


def test_four_processes_open_a_fresh_database_at_once(tmp_path):
    trainers = [start_trainer(tmp_path / "runs" / str(i), tmp_path, steps=3) for i in range(4)]
    said = [trainer.communicate(timeout=180) for trainer in trainers]
    assert said == [("recorded\n", "")] * 4
    runs = [logged(tmp_path / "runs" / str(i), tmp_path) for i in range(4)]
    assert [run.run.info.status for run in runs] == ["FINISHED"] * 4
    assert len({run.id for run in runs}) == 4
    assert {run.run.info.experiment_id for run in runs} == {runs[0].run.info.experiment_id}
    assert all(run.points() == points(lines(tmp_path / "runs" / str(i))) for i, run in enumerate(runs))


def test_an_unreachable_server_stops_nothing_and_gives_one_warning(outputs, run_dir, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = "http://127.0.0.1:9"
    with open_tracker(run_dir, outputs, uri=uri) as tracker:
        started = time.perf_counter()
        for step in range(100):
            tracker.record("rl", step, {"x": 1.0})
        assert time.perf_counter() - started < 1.0
        assert tracker.seconds < 1.0
    assert [record["step"] for record in lines(run_dir)] == list(range(100))
    warnings = [
        r.getMessage() for r in caplog.records if r.name.startswith("alignbench") and r.levelno >= logging.WARNING
    ]
    assert len(warnings) == 1
    assert uri in warnings[0]


def test_missing_records_are_logged_at_the_end_or_by_sync(outputs, run_dir, tmp_path, caplog):
    away = tmp_path / "away"
    away.write_text("a file where the database's folder should be")
    uri = f"sqlite:///{away}/mlflow.db"

    def restore():
        away.unlink()
        away.mkdir()
        with closing(sqlite3.connect(outputs / "mlflow.db")) as database:
            database.execute("VACUUM INTO ?", [str(away / "mlflow.db")])

    late, later = run_dir / "late", run_dir / "later"
    with open_tracker(later, outputs, uri=uri) as tracker:
        tracker.record("rl", 0, {"x": 1.0})
        tracker.histogram("x", 0, [1.0])
    assert uri in caplog.text
    with open_tracker(late, outputs, uri=uri) as tracker:
        tracker.record("rl", 0, {"x": 1.0})
        restore()
    log_run(later)
    log_run(later)
    for folder in (late, later):
        run = LoggedRun(folder, uri)
        assert run.points() == points(lines(folder))
        assert run.run.info.status == "FINISHED"
        assert run.run.data.params["algo.name"] == "ppo"
    assert LoggedRun(later, uri).files("histograms") == ["histograms/x-000000.svg"]


def test_a_run_that_was_deleted_in_mlflow_is_logged_again(outputs, run_dir):
    with open_tracker(run_dir, outputs) as tracker:
        tracker.record("rl", 0, {"x": 1.0})
    (run_dir / "mlflow_run_id").write_text("0" * 32)
    with open_tracker(run_dir, outputs, resume_after=0) as tracker:
        tracker.record("rl", 1, {"x": 2.0})
    assert logged(run_dir, outputs).points() == points(lines(run_dir))


@pytest.mark.parametrize("folder", ["run_dir", "output_dir"])
def test_a_folder_that_cannot_be_written_names_the_remedy(tmp_path, folder):
    (tmp_path / "file").write_text("")
    folders = {"run_dir": tmp_path / "run", "output_dir": tmp_path, folder: tmp_path / "file" / "below"}
    with pytest.raises(UserError, match=r"cannot write to .*file/below.*output_dir="):
        open_tracker(**folders)


def test_importing_the_tracker_imports_neither_mlflow_nor_torch():
    check = (
        "import sys, alignbench.store.tracker, alignbench.store.artifacts; print({'mlflow', 'torch'} & {*sys.modules})"
    )
    said = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout == "set()\n"


def test_a_run_logs_to_mlflow_without_importing_it(outputs, run_dir):
    check = (
        "import sys; from pathlib import Path; from alignbench.store.tracker import Tracker\n"
        "run_dir, outputs = map(Path, sys.argv[1:])\n"
        "with Tracker.open(run_dir, uri=None, output_dir=outputs, run_name='far', tags={'phase': 'rl'}, params={},\n"
        "                  resume_after=None) as tracker:\n"
        "    tracker.record('rl', 0, {'x': 1.0})\n"
        "print({'mlflow', 'pandas', 'sqlalchemy', 'torch'} & {*sys.modules})"
    )
    command = [sys.executable, "-c", check, str(run_dir), str(outputs)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "set()\n"
    assert logged(run_dir, outputs).points() == points(lines(run_dir))


def test_when_the_follower_is_killed_another_one_logs_everything(outputs, run_dir, caplog):
    with open_tracker(run_dir, outputs) as tracker:
        tracker.record("rl", 0, {"x": 1.0})
        deadline = time.monotonic() + 60
        while count_points(run_dir, outputs) < 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        FOLLOWER._process.kill()
        tracker.record("rl", 1, {"x": 2.0})
    assert "is started again" in caplog.text
    run = logged(run_dir, outputs)
    assert run.points() == points(lines(run_dir))
    assert run.run.info.status == "FINISHED"


def test_a_signal_to_all_processes_does_not_stop_the_follower(outputs, run_dir, caplog):
    with open_tracker(run_dir, outputs) as tracker:
        deadline = time.monotonic() + 60
        while not (run_dir / "mlflow_run_id").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        FOLLOWER._process.send_signal(signal.SIGTERM)
        tracker.record("rl", 0, {"x": 1.0})
    assert not caplog.text
    assert logged(run_dir, outputs).points() == points(lines(run_dir))


def test_the_follower_ends_when_its_run_is_killed(outputs, run_dir):
    trainer = start_trainer(run_dir, outputs, steps=1, wait=60)
    assert trainer.stdout.readline() == "recorded\n"
    deadline = time.monotonic() + 30
    while not (children := children_of(trainer.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    trainer.send_signal(signal.SIGKILL)
    trainer.communicate(timeout=30)
    while any(is_running(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children
    assert not [child for child in children if is_running(child)]


def children_of(pid):
    """The child processes of all threads of a process."""
    return [child for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


def is_running(pid):
    """Whether the process exists and has not ended."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
