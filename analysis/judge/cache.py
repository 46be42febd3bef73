"""Every answer of a judge that was ever paid for, in one SQLite file beside the runs; nothing in it expires."""

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
    """Replies by key. Each one is on disk before the next question is asked, so a killed process goes on."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._database = connection

    def get(self, key: str) -> Reply | None:
        """The reply kept under this key."""
        row = self._database.execute(GET, (key,)).fetchone()
        return None if row is None else Reply(*row)

    def put(self, key: str, reply: Reply, request: dict[str, Any], raw: str, seconds: float) -> None:
        """Keep a reply, with the request and all that was returned."""
        values = [getattr(reply, name) for name in Reply.__slots__]
        self._database.execute(
            "INSERT OR IGNORE INTO replies VALUES (?,?,?,?,?,?,?,?,?,?,datetime('now'),?,?)",
            (key, *values, seconds, json.dumps(request), raw),
        )

    def shutdown_date(self, endpoint: str, model: str) -> str | None:
        """What the endpoint last said of when the model leaves."""
        query = "SELECT shutdown FROM models WHERE endpoint = ? AND model = ?"
        row = self._database.execute(query, (endpoint, model)).fetchone()
        return None if row is None else row[0]

    def keep_shutdown_date(self, endpoint: str, model: str, date: str | None) -> None:
        """Remember it, so that a report made without the network says the same."""
        self._database.execute("INSERT OR REPLACE INTO models VALUES (?,?,?)", (endpoint, model, date))


@contextmanager
def open_cache(folder: Path) -> Iterator[Cache]:
    """The cache of an output folder, made where there is none; one process at a time, or two might pay for the same.

    Raises UserError when another process is judging, or when the file is no such cache.
    """
    path = folder / FILE
    try:
        with FileLock(f"{path}.lock", timeout=0), closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.executescript(TABLES)
            yield Cache(connection)
    except Timeout as error:
        raise UserError(f"{path}: another process is judging with this cache; wait until it is done.") from error
    except sqlite3.DatabaseError as error:
        raise UserError(f"{path}: no use as the judge's cache ({error}). Move it away to start another.") from error
