"""The MLflow backend: finds or creates the MLflow run of a run folder and logs each point to it once."""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from alignbench.core.metric_names import STUDY
from alignbench.store.disk import write_atomically
from alignbench.store.jsonl import decode_metrics
from alignbench.store.mlflow_backend import connect
from alignbench.store.tracking_info import TrackingInfo

logger = logging.getLogger(__name__)

RUN_ID, TICKET = "mlflow_run_id", "ticket"
"""The file with the id of the MLflow run, and a tag of that run. Until the id is known the file holds "ticket" and the
value of the tag: if the process is killed while MLflow creates the run, it is found by its tag, not created twice."""
METRICS_PER_CALL, PARAMS_PER_CALL, PARAM_LENGTH = 1000, 100, 6000
"""The limits of MLflow's log_batch."""
MAX_LISTED_TABLES = 50
"""How many tables are listed for the UI: the length of the tag that lists them is limited."""
Record = Mapping[str, Any]


class MLflowRun:
    """The MLflow run of a run folder: the one whose id the folder holds, or a new one."""

    def open(self, info: TrackingInfo, run_dir: Path) -> None:
        """Find or create the run, log the params that it lacks, and read which points it has."""
        self._client, experiment_id = connect(info.uri, Path(info.output_dir), info.experiment, info.tags.get(STUDY))
        id_file = run_dir / RUN_ID
        self.run_id = self._find(id_file, experiment_id) or self._create(experiment_id, info, id_file)
        run = self._client.get_run(self.run_id)
        self._log_params({k: v for k, v in info.params.items() if k not in run.data.params})
        self._logged = {(k, m.step) for k in run.data.metrics for m in self._client.get_metric_history(self.run_id, k)}

    def log(self, records: Sequence[Record]) -> None:
        """Log the metrics that the run lacked when it was opened; log files and datasets, even if logged before."""
        self._log_metrics([record for record in records if "metrics" in record])
        for path, folder in dict.fromkeys((record["path"], record["folder"]) for record in records if "path" in record):
            self._log_file(path, folder)
        if any(record.get("folder") == "tables" for record in records):
            self._list_tables()
        self._log_datasets([record for record in records if "dataset" in record])

    def end(self, status: str) -> None:
        """Set the final status: FINISHED, FAILED or KILLED."""
        self._client.set_terminated(self.run_id, status)

    def _find(self, id_file: Path, experiment_id: str) -> str | None:
        from mlflow.exceptions import MlflowException

        if not id_file.exists():
            return None
        word, _, ticket = id_file.read_text(encoding="utf-8").strip().partition(" ")
        try:
            run = self._find_by_ticket(ticket, experiment_id) if word == TICKET else self._client.get_run(word)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        if run is None or run.info.lifecycle_stage != "active":
            return None
        write_atomically(id_file, f"{run.info.run_id}\n")
        self._client.update_run(run.info.run_id, status="RUNNING")
        return str(run.info.run_id)

    def _find_by_ticket(self, ticket: str, experiment_id: str) -> Any:
        return next(iter(self._client.search_runs([experiment_id], f"tags.{TICKET} = '{ticket}'")), None)

    def _create(self, experiment_id: str, info: TrackingInfo, id_file: Path) -> str:
        ticket = uuid4().hex
        write_atomically(id_file, f"{TICKET} {ticket}\n")
        run = self._client.create_run(experiment_id, tags={**info.tags, TICKET: ticket}, run_name=info.run_name)
        write_atomically(id_file, f"{run.info.run_id}\n")
        return str(run.info.run_id)

    def _log_params(self, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        for chunk in _chunks([Param(name, value) for name, value in params.items()], PARAMS_PER_CALL):
            self._client.log_batch(self.run_id, params=chunk)

    def _log_metrics(self, records: Sequence[Record]) -> None:
        from mlflow.entities import Metric

        points = [
            Metric(_allowed(name), value, int(record["time"] * 1000), record["step"])
            for record in records
            for name, value in decode_metrics(record).items()
            if (_allowed(name), record["step"]) not in self._logged
        ]
        for chunk in _chunks(points, METRICS_PER_CALL):
            self._client.log_batch(self.run_id, metrics=chunk)

    def _log_file(self, path: str, folder: str | None) -> None:
        if Path(path).exists():
            self._client.log_artifact(self.run_id, path, folder)
        else:
            logger.warning("%s does not exist any more: it is not copied to MLflow", path)

    def _list_tables(self) -> None:
        """Set the tag by which the UI knows which artifacts are tables, as log_table does."""
        tables = [{"path": file.path, "type": "table"} for file in self._client.list_artifacts(self.run_id, "tables")]
        self._client.set_tag(self.run_id, "mlflow.loggedArtifacts", json.dumps(tables[-MAX_LISTED_TABLES:]))

    def _log_datasets(self, used: Sequence[Record]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(name=data["dataset"], digest=data["sha256"][:36], source_type="local", source=data["dataset"]),
                [InputTag("mlflow.data.context", data["context"])],
            )
            for data in used
        ]
        if inputs:
            self._client.log_inputs(self.run_id, inputs)


def as_params(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as MLflow params: allowed names, values cut to the maximum length."""
    return {_allowed(name): str(value)[:PARAM_LENGTH] for name, value in settings.items()}


def _allowed(name: str) -> str:
    """The name with characters that MLflow refuses replaced by underscores."""
    return re.sub(r"[^/\w.\- :]", "_", name)


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[at : at + size] for at in range(0, len(items), size))
