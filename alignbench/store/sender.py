"""Tells a slow or absent listener what is already on disk, from a thread of its own, so that nobody waits for it."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

logger = logging.getLogger(__name__)

Item = dict[str, Any]
EVERY_SECONDS = 5.0
"""How long an item waits at most before it is sent."""
PATIENCE_SECONDS = 120.0
"""How long `finish` waits for a listener that does not answer."""


class Listener(Protocol):
    """Who is told."""

    def tell(self, items: list[Item]) -> None: ...

    def end(self, status: str) -> None: ...


class Sender:
    """A queue and one thread. Whatever the listener raises is logged once and then forgiven.

    `connect` makes a listener that ignores what it was told before, and `written` gives all that stands on disk: so
    whatever a failure left out is told when the sender finishes.
    """

    def __init__(
        self, name: str, connect: Callable[[], Listener], written: Callable[[], Iterable[Item]], batch: int
    ) -> None:
        self._name, self._connect, self._written, self._batch = name, connect, written, batch
        self._listener: Listener | None = None
        self._behind, self._warned = False, False
        self._queue: deque[Item] = deque()
        self._wake, self._closing = threading.Event(), threading.Event()
        self._lacking: list[Item] = []
        self._thread = threading.Thread(target=self._send_on, name="sender", daemon=True)

    def start(self) -> None:
        """Connect, tell what the listener lacks, and be ready for more; returns at once."""
        self._lacking = list(self._written())  # before anything is queued, or it would be told twice
        self._thread.start()

    def put(self, item: Item) -> None:
        """Queue an item that is already on disk; returns at once."""
        self._queue.append(item)
        if len(self._queue) >= self._batch:
            self._wake.set()

    def finish(self, status: str) -> bool:
        """Send what is queued or was left out, and say how it ended. Returns whether the listener knows all now."""
        self._closing.set()
        self._wake.set()
        self._thread.join(PATIENCE_SECONDS)
        if self._thread.is_alive():
            self._warn("it does not answer")
            return False
        if self._behind:
            self._catch_up(self._written())
        with self._forgiven():
            if self._listener is not None:
                self._listener.end(status)
        return not self._behind

    def _catch_up(self, lacking: Iterable[Item]) -> None:
        with self._forgiven():
            self._listener = self._connect()
            self._listener.tell(list(lacking))
            self._behind = False

    def _send_on(self) -> None:
        self._catch_up(self._lacking)
        while not self._closing.is_set():
            self._wake.wait(EVERY_SECONDS)
            self._wake.clear()
            self._send()
        self._send()

    def _send(self) -> None:
        items = [self._queue.popleft() for _ in range(len(self._queue))]
        with self._forgiven():
            if self._listener is not None and items:
                self._listener.tell(items)

    @contextmanager
    def _forgiven(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  a server, its database and its network raise errors of any kind
            self._behind = True
            self._warn(str(error).strip() or type(error).__name__)

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            first = why.splitlines()[0][:300]
            logger.warning("%s fails: %s. The run goes on; its records are on disk", self._name, first)
