"""Uploads the report to MLflow, as a run beside the runs of the study."""

from pathlib import Path
from typing import Any

from alignbench.core import metric_names

from ..findings import Findings
from ..study.load import resolve_tracking_uri
from ..study.mlflow_reader import make_client, store_exists

FILES = ("report.html", "report.md", "report.json")
NOTE = "mlflow.note.content"
"""The tag that MLflow shows as the description of a run."""


def publish(findings: Findings, home: Path, tracking_uri: str | None) -> str | None:
    """Attach the report in the folder `home` to the report run of the study, created at the first call.

    Returns an error message if MLflow does not answer or refuses, else None. A store without the study gets no run.
    """
    from mlflow.exceptions import MlflowException

    uri = resolve_tracking_uri(findings.study.name, findings.study.output_dir, tracking_uri)
    if not store_exists(uri):
        return None
    try:
        _attach(make_client(uri), findings, home)
    except (MlflowException, OSError) as error:  # the network's errors are OSErrors
        return f"the report is in {home}, but not in MLflow at {uri}: {str(error).splitlines()[0]}"
    return None


def _attach(client: Any, findings: Findings, home: Path) -> None:
    study = findings.study.name
    trained = _find(client, study, "rl")
    if trained is None:
        return
    tags = {metric_names.STUDY: study, metric_names.PHASE: metric_names.REPORT}
    run = _find(client, study, metric_names.REPORT) or client.create_run(
        trained.info.experiment_id, run_name=f"{metric_names.REPORT} {study}", tags=tags
    )
    for name in FILES:
        client.log_artifact(run.info.run_id, str(home / name))
    client.set_tag(run.info.run_id, NOTE, findings.verdict.sentence)
    client.set_terminated(run.info.run_id)


def _find(client: Any, study: str, phase: str) -> Any:
    """The newest run of a study in this phase; None if there is none."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    tagged = f"tags.`{metric_names.STUDY}` = '{study}' and tags.`{metric_names.PHASE}` = '{phase}'"
    return next(iter(client.search_runs(experiments, tagged, max_results=1)), None)
