r"""Whether two answers are the same mathematics: math-verify in a process of its own, stopped when it takes too long.

A time limit inside the process would not do: signals reach only the main thread, and none interrupts a power such as
9^{9^9} while it is computed.
"""

import atexit
import logging
import multiprocessing
import re
import signal
import threading
from functools import cache, lru_cache
from multiprocessing.connection import Connection
from typing import Any

STARTING = 120.0
"""Seconds for the process to start: it imports sympy."""
LONGEST = 500
"""Characters of an answer that are compared as mathematics; a longer one is the same only when it is the same text."""

LOOSE_END = re.compile(r"(?:\s|\\?%|\.)+$")
"""What says nothing at the end of an answer: 20\\% is compared as 20."""

log = logging.getLogger(__name__)


class Verifier:
    """A process that compares, started at the first question and again after one that it did not survive."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: Any = None
        self._pipe: Connection | None = None

    def same(self, gold: str, answer: str, seconds: float) -> bool:
        """Whether the answer equals the gold one. An answer that takes longer, or ends the process, does not."""
        if max(len(gold), len(answer)) > LONGEST:
            return False
        with self._lock:
            pipe = self._pipe or self._start()
            try:
                pipe.send((gold, answer))
                if pipe.poll(seconds):
                    return pipe.recv()
            except (EOFError, OSError):
                what = "ended the process that compares"
            else:
                what = f"took more than {seconds:g} s"
            self.stop()
        log.warning("comparing %.80r with %.80r %s: it counts as wrong", answer, gold, what)
        return False

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = self._pipe = None

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True, name="math-verify")
        self._process.start()
        theirs.close()
        if not self._pipe.poll(STARTING):
            self.stop()
            raise TimeoutError(f"math-verify did not start within {STARTING:g} s")
        self._pipe.recv()
        return self._pipe


@cache
def verifier() -> Verifier:
    """The one of this process."""
    found = Verifier()
    atexit.register(found.stop)
    return found


def _serve(pipe: Connection) -> None:
    """Answer questions until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks decides when it ends
    logging.disable(logging.CRITICAL)  # it tells of every answer that is no mathematics
    pipe.send(True)
    while True:
        try:
            gold, answer = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(compare(gold, answer))


@lru_cache(maxsize=4096)
def compare(gold: str, answer: str) -> bool:
    """The same without a limit of time: for the process that may be stopped."""
    from math_verify import parse, verify

    # The box, because between dollar signs a second answer would go unread; in one it does not know a percent sign.
    wanted, found = (parse(rf"\boxed{{{LOOSE_END.sub('', text)}}}", parsing_timeout=None) for text in (gold, answer))
    return bool(wanted) and bool(found) and bool(verify(wanted, found, timeout_seconds=None))
