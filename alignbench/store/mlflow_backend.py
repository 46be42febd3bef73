"""Connects to an MLflow store; one process creates its database or experiment while the others wait."""

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
"""How long to wait for another process that creates the database."""
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
TIMEOUTS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""Short by default, because all records are on disk; variables that are set already take precedence."""


def connect(uri: str, output_dir: Path, experiment: str, study: str | None) -> tuple["MlflowClient", str]:
    """A client and the id of the experiment. Uses a lock: MLflow fails when two processes create a database or an
    experiment at the same time."""
    _import(uri)
    database = Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None
    with FileLock(f"{database or output_dir / 'mlflow'}.lock", timeout=LOCK_SECONDS):
        if database:
            _ensure_database(database)
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
    """A client that sends no telemetry and prints no messages."""
    _import(uri)
    from mlflow import MlflowClient

    return MlflowClient(uri)


def dashboards(uri: str, server: str) -> list[str]:
    """A line for each study in the store, newest first: the addresses of its charts and its report on that server."""
    return directory(client_of(uri), _version(uri), server)


def _import(uri: str) -> None:
    """Import what MLflow needs, which takes seconds, before the lock is taken."""
    os.environ.update(ENVIRONMENT)
    for name, value in TIMEOUTS.items():
        os.environ.setdefault(name, value)
    if not uri.startswith(SERVERS):
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401  otherwise imported at first use, with the lock held
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _version(uri: str) -> str:
    """The version of MLflow whose UI shows this store: that of the server, or the installed one."""
    import mlflow
    import requests

    if not uri.startswith(SERVERS):
        return mlflow.__version__
    try:
        answer = requests.get(f"{uri.rstrip('/')}/version", timeout=5)
        return answer.text if answer.ok else f"at {uri}"
    except requests.RequestException:
        return f"at {uri}"


def _ensure_database(database: Path) -> None:
    """Create the database if it does not exist, and enable concurrent writers."""
    if not (database.exists() and _has_tables(database)):
        _create(database)
    _enable_wal(database)


def _create(database: Path) -> None:
    """Have MLflow create it in a temporary folder, and rename a copy: an incomplete database cannot be used."""
    temporary = database.with_name(f".{database.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    temporary.mkdir()
    original, copy = (
        temporary / f"{uuid4().hex}.db",
        temporary / "copy.db",
    )  # MLflow keeps it open
    try:
        _enable_wal(original)
        client_of(f"{SQLITE}{original}")
        with closing(sqlite3.connect(original)) as connection:
            connection.execute("VACUUM INTO ?", [str(copy)])
        flush(copy)
        for tail in ("-wal", "-shm", "-journal"):  # of a database that was deleted
            database.with_name(database.name + tail).unlink(missing_ok=True)
        copy.rename(database)
        flush(database.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _has_tables(database: Path) -> bool:
    with closing(sqlite3.connect(database, timeout=20)) as connection:
        return bool(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _enable_wal(database: Path) -> None:
    """Enable the write-ahead log of SQLite, so that parallel runs wait less for each other."""
    with closing(sqlite3.connect(database, timeout=20)) as connection:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode=WAL")
