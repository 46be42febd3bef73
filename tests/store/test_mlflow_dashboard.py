"""The shared view: the addresses of each study, and both methods drawn by a real browser on a real MLflow server.

The last test needs Chromium or Chrome on PATH (chromium, chromium-browser or google-chrome) and is skipped without one;
nothing is downloaded. It takes about half a minute, most of it the start of MLflow.
"""

import base64
import json
import os
import zlib
from pathlib import Path

import mlflow
import pytest
from browser import NAMES, Browser, chromium
from mlflow import MlflowClient

from alignbench.store import mlflow_dashboard
from alignbench.store.follower import FOLLOWER
from alignbench.store.mlflow_backend import dashboards
from alignbench.store.tracker import Tracker
from validation.faults.mlflow_server import Server

SERVER = "http://127.0.0.1:5000"
BLUE, ORANGE = "rgb(19, 125, 174)", "rgb(222, 121, 33)"
"""The colours that MLflow gives to view/arm = ppo and grpo."""
DRAWN = """JSON.stringify([...document.querySelectorAll('.js-plotly-plot')].slice(0, 2).map(chart => ({
    lines: [...chart.querySelectorAll('.js-line')].filter(l => l.style.strokeOpacity == 1).map(l => l.style.stroke),
    bands: [...chart.querySelectorAll('.js-fill')].map(band => band.style.fill).filter(Boolean)})))"""


def train(outputs: Path, study: str, method: str, seed: int) -> None:
    """Write a few of the records of a run."""
    tags = {"study": study, "method": method, "seed": str(seed), "phase": "rl", "model": "tiny"}
    run_dir = outputs / "runs" / study / f"{method}-{seed}"
    info = {"uri": None, "output_dir": outputs, "tags": tags, "run_name": run_dir.name, "params": {}}
    with Tracker.open(run_dir, **info, resume_after=None, wait=False) as tracker:
        for step in range(6):
            height = step * (1.0 if method == "ppo" else 2.0) + seed
            tracker.record("rl", step, {"eval/gold": height, "eval/kl": height / 9, "budget/tokens": 10.0 * step})
        tracker.record("evaluate", 5, {"final/gold": height})


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    for method in ("ppo", "grpo"):
        for seed in (1, 2):
            train(folder, "one", method, seed)
    train(folder, "two", "ppo", 1)
    FOLLOWER.finish()
    return folder


def state_of(outputs: Path, study: str) -> dict:
    tags = MlflowClient(f"sqlite:///{outputs}/mlflow.db").get_experiment("1").tags
    how, packed = tags[f"mlflow.sharedViewState.{study}"].split(";")
    assert how == "deflate"
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_each_study_has_its_own_view_as_soon_as_it_runs(outputs: Path) -> None:
    for study in ("one", "two"):
        state = state_of(outputs, study)
        assert state["searchFilter"] == f"tags.study = '{study}'"
        assert state["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "view/arm"}]
    runs = MlflowClient(f"sqlite:///{outputs}/mlflow.db").search_runs(["1"])
    assert {run.data.tags["view/arm"] for run in runs} == {"ppo", "grpo"}
    assert all(run.data.tags["view/arm"] == run.data.tags["method"] for run in runs)


def test_the_addresses_of_all_studies_are_listed_newest_first(outputs: Path) -> None:
    uri = f"sqlite:///{outputs}/mlflow.db"
    view = f"{SERVER}/#/experiments/1/runs?compareRunsMode=CHART&viewStateShareKey="
    assert dashboards(uri, SERVER) == [f"two  {view}two", f"one  {view}one"]
    client = MlflowClient(uri)
    report = client.create_run("1", tags={"study": "one", "phase": "report"}).info.run_id
    page = f"{SERVER}/#/experiments/1/runs/{report}/artifacts/report.html"
    assert dashboards(uri, SERVER) == [f"one  {view}one", f"     {page}", f"two  {view}two"]
    client.delete_run(report)


@pytest.mark.parametrize(
    ("version", "known"),
    [
        ("3.5.0", True),
        ("3.17.2", True),
        ("3.18.0rc1", True),
        ("3.19.0", False),
        ("3.4.9", False),
        ("4.0.0", False),
        ("2.17.2", False),
        ("at http://127.0.0.1:9", False),
        ("", False),
    ],
)
def test_supported_versions(version: str, known: bool) -> None:
    assert mlflow_dashboard.is_known(version) is known


def test_an_unsupported_mlflow_gets_a_plain_link_and_a_warning(outputs: Path, caplog: pytest.LogCaptureFixture) -> None:
    client = MlflowClient(f"sqlite:///{outputs}/mlflow.db")
    before = client.get_experiment("1").tags
    assert mlflow_dashboard.install(client, client.get_experiment("1"), "three", "9.1.0") == "#/experiments/1/runs"
    assert client.get_experiment("1").tags == before
    assert "MLflow 9.1.0 gets no shared view: the view supports 3.5 to 3.18" in caplog.text
    assert "group by the tag method" in caplog.text


def test_a_store_that_refuses_the_view_gets_a_plain_link(outputs: Path, caplog: pytest.LogCaptureFixture) -> None:
    client = MlflowClient(f"sqlite:///{outputs}/mlflow.db")
    study = "x" * 300  # MLflow takes at most 250 characters for the name of a tag
    assert mlflow_dashboard.install(client, client.get_experiment("1"), study, "3.17.2") == "#/experiments/1/runs"
    assert "gets no shared view" in caplog.text


def test_the_installed_mlflow_supports_every_key_of_the_view() -> None:
    state = mlflow_dashboard.STATE
    scripts = (Path(mlflow.__file__).parent / "server" / "js" / "build" / "static" / "js").glob("*.js")
    ui = "".join(script.read_text(encoding="utf-8") for script in scripts)
    keys = [
        "mlflow.sharedViewState",
        "viewStateShareKey",
        "compareRunsMode",
        "deflate;",
        "SHOW_ALL",
        *state,
        *state["groupBy"],
        *state["globalLineChartConfig"],
        *state["compareRunSections"][0],
        *state["compareRunCharts"][0],
    ]
    assert [key for key in keys if key not in ui] == []


@pytest.mark.skipif(chromium() is None, reason=f"needs one of {', '.join(NAMES)} on PATH")
def test_both_methods_are_drawn_with_mean_and_band(outputs: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{outputs}/mlflow.db"
    with Server(tmp_path, uri) as server, Browser(tmp_path / "profile") as browser:
        line = next(line for line in dashboards(uri, server.uri) if line.startswith("one"))
        browser.open(line.split()[1])
        browser.wait_for(f"JSON.parse({DRAWN}).filter(c => c.lines.length == 2 && c.bands.length == 2).length == 2", 60)
        charts = json.loads(browser.value(DRAWN))
        text = browser.value("document.body.innerText")
        if picture := os.environ.get("ALIGNBENCH_SCREENSHOT"):
            browser.screenshot(Path(picture))
    assert [(set(chart["lines"]), set(chart["bands"])) for chart in charts] == [({BLUE, ORANGE}, {BLUE, ORANGE})] * 2
    assert "ppo (eval/gold)" in text
    assert "grpo (eval/gold)" in text
    assert "4 matching runs" in text, "the runs of another study are not mixed in"
    assert text.index("eval/gold") < text.index("eval/kl") < text.index("final") < text.index("budget")
