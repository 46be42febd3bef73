"""The MLflow run of a run: found again or made, and told each number once."""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from alignbench.core.metric_names import STUDY
from alignbench.store.disk import write_atomically
from alignbench.store.jsonl import decode_metrics
from alignbench.store.mlflow_backend import connect
from alignbench.store.sender import Item

logger = logging.getLogger(__name__)

RUN_ID, TICKET = "mlflow_run_id", "ticket"
"""Where the id is kept; and a tag, which is the first word in that file until there is an id: by it a run is found that
was asked for when we were killed, so that none is made twice."""
METRICS_PER_CALL, PARAMS_PER_CALL, PARAM_LENGTH = 1000, 100, 6000
"""The limits of MLflow's log_batch."""
TABLES_SHOWN = 50
"""How many tables the UI is told of: the tag that names them has a limited length."""


@dataclass(frozen=True, kw_only=True)
class MLflowRunInfo:
    """What MLflow must know to begin a run; kept in `tracking.json`, so that it can be told later too."""

    uri: str
    output_dir: str
    experiment: str
    run_name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]


class MLflowRun:
    """The MLflow run of a run folder: the one whose id is remembered there, or a new one."""

    def __init__(self, card: MLflowRunInfo, run_dir: Path) -> None:
        self._client, experiment_id = connect(card.uri, Path(card.output_dir), card.experiment, card.tags.get(STUDY))
        note = run_dir / RUN_ID
        self.run_id = self._remembered(note, experiment_id) or self._new(experiment_id, card, note)
        run = self._client.get_run(self.run_id)
        self._tell_params({k: v for k, v in card.params.items() if k not in run.data.params})
        self._told = {(k, m.step) for k in run.data.metrics for m in self._client.get_metric_history(self.run_id, k)}

    def tell(self, items: Sequence[Item]) -> None:
        """Send the metrics it was not told before this object was made; and files and datasets, again if need be."""
        self._tell_metrics([item for item in items if "metrics" in item])
        for path, folder in dict.fromkeys((item["path"], item["folder"]) for item in items if "path" in item):
            self._tell_file(path, folder)
        if any(item.get("folder") == "tables" for item in items):
            self._list_tables()
        self._tell_datasets([item for item in items if "dataset" in item])

    def end(self, status: str) -> None:
        """Say how it ended: FINISHED, FAILED or KILLED."""
        self._client.set_terminated(self.run_id, status)

    def _remembered(self, note: Path, experiment_id: str) -> str | None:
        from mlflow.exceptions import MlflowException

        if not note.exists():
            return None
        word, _, ticket = note.read_text(encoding="utf-8").strip().partition(" ")
        try:
            run = self._asked_for(ticket, experiment_id) if word == TICKET else self._client.get_run(word)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        if run is None or run.info.lifecycle_stage != "active":
            return None
        write_atomically(note, f"{run.info.run_id}\n")
        self._client.update_run(run.info.run_id, status="RUNNING")
        return str(run.info.run_id)

    def _asked_for(self, ticket: str, experiment_id: str) -> Any:
        return next(iter(self._client.search_runs([experiment_id], f"tags.{TICKET} = '{ticket}'")), None)

    def _new(self, experiment_id: str, card: MLflowRunInfo, note: Path) -> str:
        ticket = uuid4().hex
        write_atomically(note, f"{TICKET} {ticket}\n")
        run = self._client.create_run(experiment_id, tags={**card.tags, TICKET: ticket}, run_name=card.run_name)
        write_atomically(note, f"{run.info.run_id}\n")
        return str(run.info.run_id)

    def _tell_params(self, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        for some in _chunks([Param(name, value) for name, value in params.items()], PARAMS_PER_CALL):
            self._client.log_batch(self.run_id, params=some)

    def _tell_metrics(self, records: Sequence[Item]) -> None:
        from mlflow.entities import Metric

        points = [
            Metric(_allowed(name), value, int(record["time"] * 1000), record["step"])
            for record in records
            for name, value in decode_metrics(record).items()
            if (_allowed(name), record["step"]) not in self._told
        ]
        for some in _chunks(points, METRICS_PER_CALL):
            self._client.log_batch(self.run_id, metrics=some)

    def _tell_file(self, path: str, folder: str | None) -> None:
        if Path(path).exists():
            self._client.log_artifact(self.run_id, path, folder)
        else:
            logger.warning("%s is gone: MLflow gets no copy of it", path)

    def _list_tables(self) -> None:
        """Tell the UI which artifacts are tables, in the way that log_table does."""
        tables = [{"path": file.path, "type": "table"} for file in self._client.list_artifacts(self.run_id, "tables")]
        self._client.set_tag(self.run_id, "mlflow.loggedArtifacts", json.dumps(tables[-TABLES_SHOWN:]))

    def _tell_datasets(self, items: Sequence[Item]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(name=item["dataset"], digest=item["sha256"][:36], source_type="local", source=item["dataset"]),
                [InputTag("mlflow.data.context", item["context"])],
            )
            for item in items
        ]
        if inputs:
            self._client.log_inputs(self.run_id, inputs)


def as_params(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as MLflow accepts them."""
    return {_allowed(name): str(value)[:PARAM_LENGTH] for name, value in settings.items()}


def _allowed(name: str) -> str:
    """A name as MLflow accepts it."""
    return re.sub(r"[^/\w.\- :]", "_", name)


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[at : at + size] for at in range(0, len(items), size))
