r"""Compares two answers as mathematics with math-verify, in a separate process with a time limit.

A time limit within the process is not enough: signals reach only the main thread, and no signal interrupts a power such
as 9^{9^9} while it is computed.
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

START_SECONDS = 120.0
"""Time limit for the start of the process, which imports sympy."""
MAX_CHARACTERS = 500
"""Answers of more characters are equal only when their texts are."""

TRAILING = re.compile(r"(?:\s|\\?%|\.)+$")
"""Ignored at the end of an answer: 20\\% is compared as 20."""

log = logging.getLogger(__name__)


class Verifier:
    """A process that compares answers; started at the first comparison and restarted after one that ended it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: Any = None
        self._pipe: Connection | None = None

    def same(self, gold: str, answer: str, seconds: float) -> bool:
        """Whether the answer equals the gold one; False when the comparison exceeds `seconds` or ends the process."""
        if max(len(gold), len(answer)) > MAX_CHARACTERS:
            return False
        with self._lock:
            pipe = self._pipe or self._start()
            try:
                pipe.send((gold, answer))
                if pipe.poll(seconds):
                    return bool(pipe.recv())
            except (EOFError, OSError):
                reason = "ended the comparison process"
            else:
                reason = f"took more than {seconds:g} s"
            self.stop()
        log.warning("comparing %.80r with %.80r %s: the answer counts as incorrect", answer, gold, reason)
        return False

    def stop(self) -> None:
        """Kill the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = self._pipe = None

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")  # a forked process with threads may hang
        self._pipe, child_pipe = context.Pipe()
        self._process = context.Process(target=_serve, args=(child_pipe,), daemon=True, name="math-verify")
        self._process.start()
        child_pipe.close()
        if not self._pipe.poll(START_SECONDS):
            self.stop()
            raise TimeoutError(f"math-verify did not start within {START_SECONDS:g} s")
        self._pipe.recv()
        return self._pipe


@cache
def get_verifier() -> Verifier:
    """The verifier of this process; stopped at exit."""
    verifier = Verifier()
    atexit.register(verifier.stop)
    return verifier


def _serve(pipe: Connection) -> None:
    """Compare the answers that arrive on the pipe until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends this one
    logging.disable(logging.CRITICAL)  # math-verify logs every answer that it cannot parse
    compare("1", "1")  # imports math-verify and builds its grammar, which must not count as time of the first answer
    pipe.send(True)
    while True:
        try:
            gold, answer = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(compare(gold, answer))


@lru_cache(maxsize=4096)
def compare(gold: str, answer: str) -> bool:
    """Whether two answers are equal as mathematics, without a time limit."""
    from math_verify import parse, verify

    # In \boxed{}, because math-verify reads only the first answer between dollar signs; it does not parse % in a box.
    expected, actual = (parse(rf"\boxed{{{TRAILING.sub('', text)}}}", parsing_timeout=None) for text in (gold, answer))
    return bool(expected) and bool(actual) and bool(verify(expected, actual, timeout_seconds=None))
