"""Where MLflow keeps its runs: reached, or made whole by one process while the others wait."""

import logging
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from filelock import FileLock

from alignbench.store.disk import flush
from alignbench.store.mlflow_dashboard import directory, install, view_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE, SERVERS = "sqlite:///", ("http://", "https://")
LOCK_SECONDS = 120
"""How long a run waits at most for another one that makes the database."""
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""Unless the environment says otherwise: a server is given up soon, as all it is told is on disk anyway."""


def connect(uri: str, output_dir: Path, experiment: str, study: str | None) -> tuple["MlflowClient", str]:
    """A client and the experiment's id. Behind a lock: processes that make a database or an experiment at once break
    each other."""
    _import(uri)
    database = Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None
    with FileLock(f"{database or output_dir / 'mlflow'}.lock", timeout=LOCK_SECONDS):
        if database:
            _make_sure_of(database)
        client = client_of(uri)
        found = client.get_experiment_by_name(experiment)
        if not found:
            served = uri.startswith((*SERVERS, "databricks"))
            location = None if served else (output_dir / "mlartifacts").as_uri()
            found = client.get_experiment(client.create_experiment(experiment, artifact_location=location))
        if study and not view_tags(study).items() <= found.tags.items():
            install(client, found, study, _version(uri))
        return client, found.experiment_id


def client_of(uri: str) -> "MlflowClient":
    """A quiet client that sends no telemetry."""
    _import(uri)
    from mlflow import MlflowClient

    return MlflowClient(uri)


def dashboards(uri: str, server: str) -> list[str]:
    """A line for each study in the store, the newest first: where on that server its charts are, and its report."""
    return directory(client_of(uri), _version(uri), server)


def _import(uri: str) -> None:
    """Import what MLflow needs there, which takes seconds: before the lock, so that nobody waits for it too."""
    os.environ.update(ENVIRONMENT)
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    if not uri.startswith(SERVERS):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  MLflow would import it at first use, under the lock
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _version(uri: str) -> str:
    """The version of MLflow whose pages show this store: the server's, or the one that is installed here."""
    import mlflow
    import requests

    if not uri.startswith(SERVERS):
        return mlflow.__version__
    try:
        answer = requests.get(f"{uri.rstrip('/')}/version", timeout=5)
        return answer.text if answer.ok else f"at {uri}"
    except requests.RequestException:
        return f"at {uri}"


def _make_sure_of(database: Path) -> None:
    """Make the database where there is none, and let many write to it."""
    if not (database.exists() and _has_tables(database)):
        _make(database)
    _let_many_write(database)


def _make(database: Path) -> None:
    """Let MLflow make it aside, and rename a copy: half a database cannot be gone on with."""
    aside = database.with_name(f".{database.name}.part")
    shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed: we hold the lock now
    aside.mkdir()
    made, copy = aside / f"{uuid4().hex}.db", aside / "copy.db"  # MLflow keeps a database open: no name comes twice
    try:
        _let_many_write(made)
        client_of(f"{SQLITE}{made}")
        with closing(sqlite3.connect(made)) as connection:
            connection.execute("VACUUM INTO ?", [str(copy)])
        flush(copy)
        for tail in ("-wal", "-shm", "-journal"):  # of a database that was deleted
            database.with_name(database.name + tail).unlink(missing_ok=True)
        copy.rename(database)
        flush(database.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _has_tables(database: Path) -> bool:
    with closing(sqlite3.connect(database, timeout=20)) as connection:
        return connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] > 0


def _let_many_write(database: Path) -> None:
    """Turn on SQLite's write-ahead log, so that runs side by side wait less for each other."""
    with closing(sqlite3.connect(database, timeout=20)) as connection:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode=WAL")
