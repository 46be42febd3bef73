"""SQLite cache of judge replies, stored beside the runs; entries never expire."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from alignbench.core.errors import UserError

from .verdicts import Reply

FILE = "judge.sqlite"
TABLES = """
CREATE TABLE IF NOT EXISTS replies (
  key TEXT PRIMARY KEY, content TEXT, refusal TEXT, finish TEXT, model TEXT, fingerprint TEXT,
  input_tokens INTEGER, cached_tokens INTEGER, output_tokens INTEGER, seconds REAL, asked TEXT, request TEXT, raw TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS models (endpoint TEXT, model TEXT, shutdown TEXT, PRIMARY KEY (endpoint, model));
"""
GET = """SELECT content, refusal, finish, model, fingerprint, input_tokens, cached_tokens, output_tokens
FROM replies WHERE key = ?"""


class Cache:
    """Replies by request key. Each reply is committed before the next request, so a killed process can resume."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._database = connection

    def get(self, key: str) -> Reply | None:
        """The cached reply for this key, or None."""
        row = self._database.execute(GET, (key,)).fetchone()
        return None if row is None else Reply(*row)

    def put(self, key: str, reply: Reply, request: dict[str, Any], raw: str, seconds: float) -> None:
        """Store a reply with its request body and the raw response; an existing entry is kept."""
        values = [getattr(reply, name) for name in Reply.__slots__]
        self._database.execute(
            "INSERT OR IGNORE INTO replies VALUES (?,?,?,?,?,?,?,?,?,?,datetime('now'),?,?)",
            (key, *values, seconds, json.dumps(request), raw),
        )

    def shutdown_date(self, endpoint: str, model: str) -> str | None:
        """The shutdown date that the endpoint last reported for the model (YYYY-MM-DD), or None."""
        query = "SELECT shutdown FROM models WHERE endpoint = ? AND model = ?"
        row = self._database.execute(query, (endpoint, model)).fetchone()
        return None if row is None else row[0]

    def put_shutdown_date(self, endpoint: str, model: str, date: str | None) -> None:
        """Store the shutdown date, so that a report made offline shows it too."""
        self._database.execute("INSERT OR REPLACE INTO models VALUES (?,?,?)", (endpoint, model, date))


@contextmanager
def open_cache(folder: Path) -> Iterator[Cache]:
    """Open the cache of an output folder and create it if it does not exist; locked for one process at a time.

    Raises UserError when another process holds the lock, or when the file is not a valid cache.
    """
    path = folder / FILE
    try:
        with FileLock(f"{path}.lock", timeout=0), closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.executescript(TABLES)
            yield Cache(connection)
    except Timeout as error:
        raise UserError(f"{path}: another process is using this judge cache; wait until it has finished.") from error
    except sqlite3.DatabaseError as error:
        raise UserError(
            f"{path}: not a valid judge cache ({error}). Move the file away to start a new cache."
        ) from error
