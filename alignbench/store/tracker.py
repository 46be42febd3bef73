"""The only file here that imports mlflow: local JSONL first, MLflow after it."""

import json
import logging
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from filelock import FileLock

from alignbench.core.record import METHOD, PHASE, STUDY
from alignbench.store.dashboard import SERIES, directory, install, view_tags
from alignbench.store.disk import make_folder, write_whole
from alignbench.store.journal import Journal, numbers
from alignbench.store.logbook import Logbook, start_anew, written
from alignbench.store.sender import Item, Sender

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)

CARD, RUN_ID = "tracking.json", "mlflow_run_id"
TICKET = "ticket"
"""A tag, and the first word in the file of the id until there is one: by it a run is found that was asked for when we
were killed, so that none is made twice."""
ENDINGS = ("FINISHED", "FAILED", "KILLED")
METRICS_PER_CALL, PARAMS_PER_CALL, PARAM_LENGTH = 1000, 100, 6000
"""The limits of MLflow's log_batch."""
LOCK_SECONDS = 120
"""How long a run waits at most for another one that makes the database."""
TABLES_SHOWN = 50
"""How many tables the UI is told of: the tag that names them has a limited length."""


class Tracker(Logbook):
    """A logbook that tells MLflow soon after it was written in; training never waits for that.

    MLflow may fail or be out of reach: one warning says so, nothing is lost, and `sync` tells it later.
    Made by `Tracker.open`, used in a `with` statement: leaving it by an error marks the MLflow run FAILED, by an
    interruption KILLED, otherwise FINISHED.
    """

    def __init__(self, run_dir: Path, card: "Card", batch: int, enabled: bool) -> None:
        super().__init__(run_dir)
        self._card = card
        self._closed = False
        sender = Sender(f"MLflow at {card.uri}", lambda: MLflowRun(card, run_dir), lambda: written(run_dir), batch)
        self._sender = sender if enabled else None

    @classmethod
    def open(
        cls,
        run_dir: Path,
        *,
        uri: str | None,
        output_dir: Path,
        experiment: str = "alignbench",
        run_name: str,
        tags: Mapping[str, str],
        params: Mapping[str, Any],
        batch: int = 50,
        enabled: bool = True,
        resume_after: int | None,
    ) -> Self:
        """Begin to write down a run, or go on with one.

        `uri` None means SQLite under `output_dir`; `batch` is how many records MLflow hears of at once; with `enabled`
        False only the files are written. `resume_after` is the step of the checkpoint that a run resumes from:
        what was recorded after that step of the phase in `tags` is dropped, to be written again. With
        None the run starts anew, and an earlier attempt's records are kept in `metrics.previous.jsonl`. Either way the
        MLflow run of this `run_dir` goes on, and is never told a step twice. Raises UserError when a folder cannot be
        written.
        """
        run_dir, output_dir = make_folder(Path(run_dir)).resolve(), make_folder(Path(output_dir)).resolve()
        card = Card(
            uri=uri or f"sqlite:///{output_dir}/mlflow.db",
            output_dir=str(output_dir),
            experiment=experiment,
            run_name=run_name,
            tags={name: str(value) for name, value in {SERIES: tags.get(METHOD, ""), **tags}.items()},
            params={_allowed(name): str(value)[:PARAM_LENGTH] for name, value in params.items()},
        )
        if resume_after is None:
            start_anew(run_dir)
        _keep(card, run_dir, told=False if enabled else None)
        tracker = cls(run_dir, card, batch, enabled)
        if resume_after is not None:
            tracker._metrics.cut(card.tags[PHASE], resume_after)
        if tracker._sender:
            tracker._sender.start()
        return tracker

    def close(self, status: str = "FINISHED") -> None:
        """Tell MLflow what it does not know yet and how the run ended: FINISHED, FAILED or KILLED. Only once."""
        assert status in ENDINGS, f"status must be one of {ENDINGS}"
        if self._closed:
            return
        self._closed = True
        _keep(self._card, self.run_dir, told=False if self._sender else None, status=status)
        if self._sender and self._sender.finish(status):
            _keep(self._card, self.run_dir, told=True, status=status)
        super().close(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close("FINISHED" if kind is None else "FAILED" if issubclass(kind, Exception) else "KILLED")

    def _write(self, journal: Journal, item: Item) -> None:
        super()._write(journal, item)
        if self._sender:
            self._sender.put(item)


@dataclass(frozen=True, kw_only=True)
class Card:
    """What MLflow must know to begin a run; kept in `tracking.json`, so that it can be told later too."""

    uri: str
    output_dir: str
    experiment: str
    run_name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]


class MLflowRun:
    """The MLflow run of a run folder: the one whose id is remembered there, or a new one."""

    def __init__(self, card: Card, run_dir: Path) -> None:
        self._client, experiment_id = _connect(card)
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
        write_whole(note, f"{run.info.run_id}\n")
        self._client.update_run(run.info.run_id, status="RUNNING")
        return str(run.info.run_id)

    def _asked_for(self, ticket: str, experiment_id: str) -> Any:
        return next(iter(self._client.search_runs([experiment_id], f"tags.{TICKET} = '{ticket}'")), None)

    def _new(self, experiment_id: str, card: Card, note: Path) -> str:
        ticket = uuid4().hex
        write_whole(note, f"{TICKET} {ticket}\n")
        run = self._client.create_run(experiment_id, tags={**card.tags, TICKET: ticket}, run_name=card.run_name)
        write_whole(note, f"{run.info.run_id}\n")
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
            for name, value in numbers(record).items()
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


def sync(run_dir: Path) -> None:
    """Tell MLflow what it lacks of a run that ended, each point once. Raises what MLflow raises."""
    kept = json.loads((Path(run_dir) / CARD).read_text(encoding="utf-8"))
    told, status = kept.pop("told", None), kept.pop("status", "KILLED")
    card = Card(**kept)
    run = MLflowRun(card, Path(run_dir))
    run.tell(list(written(Path(run_dir))))
    run.end(status)
    _keep(card, Path(run_dir), told=None if told is None else True, status=status)


def lacks(run_dir: Path) -> bool:
    """Whether MLflow may not have heard all of a run that wanted to tell it."""
    card = Path(run_dir) / CARD
    return card.exists() and json.loads(card.read_text(encoding="utf-8")).get("told") is False


def _keep(card: Card, run_dir: Path, **more: Any) -> None:
    """Write down what MLflow must know of a run; `told` says whether it knows all, null that it was not asked for."""
    write_whole(run_dir / CARD, json.dumps({**asdict(card), **more}, indent=2))


def dashboards(uri: str, server: str) -> list[str]:
    """A line for each study in the store, the newest first: where on that server its charts are, and its report."""
    return directory(_client(uri), _version(uri), server)


def _version(uri: str) -> str:
    """The version of MLflow whose pages show this store: the server's, or the one that is installed here."""
    import mlflow
    import requests

    if not uri.startswith(("http://", "https://")):
        return mlflow.__version__
    try:
        answer = requests.get(f"{uri.rstrip('/')}/version", timeout=5)
        return answer.text if answer.ok else f"at {uri}"
    except requests.RequestException:
        return f"at {uri}"


def _connect(card: Card) -> tuple["MlflowClient", str]:
    """A client and the experiment's id. Behind a lock: processes that make the database at once break each other."""
    database = Path(card.uri.removeprefix("sqlite:///")) if card.uri.startswith("sqlite:///") else None
    with FileLock(f"{database or Path(card.output_dir) / 'mlflow'}.lock", timeout=LOCK_SECONDS):
        if database:
            _let_many_write(database)
        client = _client(card.uri)
        found = client.get_experiment_by_name(card.experiment)
        if not found:
            served = card.uri.startswith(("http://", "https://", "databricks"))
            location = None if served else (Path(card.output_dir) / "mlartifacts").as_uri()
            found = client.get_experiment(client.create_experiment(card.experiment, artifact_location=location))
        study = card.tags.get(STUDY)
        if study and not view_tags(study).items() <= found.tags.items():
            install(client, found, study, _version(card.uri))
        return client, found.experiment_id


def _let_many_write(database: Path) -> None:
    """Turn on SQLite's write-ahead log, so that runs side by side wait less for each other."""
    with closing(sqlite3.connect(database, timeout=20)) as connection:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode=WAL")


def _client(uri: str) -> "MlflowClient":
    """A quiet client that sends no telemetry and gives up on a server soon, as all it is told is on disk anyway."""
    quiet = ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT")
    os.environ.update(dict.fromkeys(quiet, "true"))
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(uri)


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _allowed(name: str) -> str:
    """A name as MLflow accepts it."""
    return re.sub(r"[^/\w.\- :]", "_", name)
