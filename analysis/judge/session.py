"""Judges a list of answer pairs: cached replies first, then concurrent calls until done or stopped by a limit."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from alignbench.core.errors import UserError
from alignbench.core.judge_settings import Judge

from ..study.metrics import counted
from .answer_pairs import AnswerPair
from .cache import Cache
from .call_worker import CallWorker
from .endpoint import Endpoint
from .prompt import ORDERS, Order, Request, Template
from .spending_limit import SpendingLimit, compute_price, expected_price
from .trial import INVALID, TIE, UNJUDGED, Trial
from .verdicts import Reply

Log = Callable[[str], None]
TrialKey = tuple[int, Order]
"""Index of the answer pair, and the order in which its answers are presented."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdicts:
    """Verdicts of one judge on a list of answer pairs.

    `trials` [pairs, 2]: WIN, TIE, LOSS of the treatment, INVALID or UNJUDGED, with the treatment presented first and
    second. `truncated` [pairs]: a text exceeds judge.max_chars. `calls`, `dollars` [pairs]: calls and cost of each
    pair; a call that serves several pairs counts for the first one. `failures` [pairs]: kind of the last failure or "".
    """

    trials: np.ndarray
    failures: tuple[str, ...]
    truncated: np.ndarray
    calls: np.ndarray
    dollars: np.ndarray
    models: tuple[str, ...]
    shutdown_date: str | None
    stopped: str | None


class Session:
    """The judging of one list of answer pairs by one judge; `stopped` is the reason why it ended early."""

    def __init__(self, judge: Judge, pairs: Sequence[AnswerPair], cache: Cache, log: Log) -> None:
        self.judge, self.cache, self.log = judge, cache, log
        self.stopped: str | None = None
        self._pairs, self._template = pairs, Template(judge)
        self._trials = np.full((len(pairs), 2), UNJUDGED, dtype=np.int8)
        self._failures = [""] * len(pairs)
        self._counted: set[str] = set()
        self._models: set[str] = set()
        self._calls, self._dollars = np.zeros(len(pairs), dtype=int), np.zeros(len(pairs))

    def run(self, check_date: Callable[[str | None], None]) -> Verdicts:
        """Judge all pairs. `check_date` receives the shutdown date from the endpoint and raises UserError if it passed.

        Raises UserError when the endpoint failed before it returned a single verdict.
        """
        keys = [
            (i, order) for i in range(len(self._pairs)) for order in ORDERS if not self._record_from_cache(i, order)
        ]
        if keys:
            self._announce(keys)
            if self.judge.mode == "ask":
                asyncio.run(self._run_calls(keys, check_date))
            else:
                self.stopped = "judge.mode=cache_only, and the cache does not contain all verdicts"
            self._log_total()
        return Verdicts(
            trials=self._trials,
            failures=tuple(self._failures),
            truncated=np.array([self._template.is_truncated(pair) for pair in self._pairs], dtype=bool),
            calls=self._calls,
            dollars=self._dollars,
            models=tuple(sorted(self._models - {""})),
            shutdown_date=self.cache.shutdown_date(self.judge.base_url, self.judge.model) or self.judge.shutdown_date,
            stopped=self.stopped,
        )

    def make_trial(self, key: TrialKey) -> Trial:
        """A new trial: one answer pair in one order."""
        i, order = key
        return Trial(self._template, self._pairs[i], order)

    def count_call(self, key: TrialKey, request: Request, reply: Reply) -> None:
        """Count a call and its cost once, even if it serves several pairs."""
        if request.key not in self._counted:
            self._counted.add(request.key)
            self._models.add(reply.model)
            self._calls[key[0]] += 1
            self._dollars[key[0]] += compute_price(reply, self.judge.prices)

    def record(self, key: TrialKey, trial: Trial) -> None:
        """Record the result of a trial."""
        i, order = key
        self._trials[i, order] = trial.result
        if trial.result == INVALID:
            self._failures[i] = str(trial.outcome)

    def _record_from_cache(self, i: int, order: Order) -> bool:
        """Record a trial from the cache; identical answers tie. Returns False if a call is needed."""
        if self._pairs[i].identical:
            self._trials[i, order] = TIE
            return True
        trial = self.make_trial((i, order))
        while trial.outcome is None:
            request = trial.request
            reply = self.cache.get(request.key)
            if reply is None:
                return False
            self.count_call((i, order), request, reply)
            trial.add_reply(reply)
        self.record((i, order), trial)
        return True

    async def _run_calls(self, keys: Sequence[TrialKey], check_date: Callable[[str | None], None]) -> None:
        endpoint = Endpoint(self.judge)
        try:
            date = await endpoint.fetch_shutdown_date()
            check_date(date)
            self.cache.put_shutdown_date(self.judge.base_url, self.judge.model, date)
            worker = CallWorker(
                self, endpoint, SpendingLimit(self.judge.max_dollars, float(self._dollars.sum())), len(keys)
            )
            queue = iter(sorted(keys, key=lambda key: (key[0], key[1] != self._first_order(key[0]))))
            await asyncio.gather(*(worker.work(queue) for _ in range(self.judge.concurrency)))
        finally:
            await endpoint.close()
        if self.stopped and worker.failed and not self._counted:
            raise UserError(f"the judge returned no verdict: {self.stopped}")

    def _first_order(self, i: int) -> Order:
        """The order that is judged first: by hash, so that neither method is always presented first."""
        return ORDERS[sha256(f"{self._pairs[i].seed}/{self._pairs[i].prompt_id}".encode()).digest()[0] % 2]

    def _announce(self, keys: Sequence[TrialKey]) -> None:
        sample = [self.make_trial(key).request for key in keys[:: max(1, len(keys) // 200)]]
        each = sum(expected_price(request, self.judge) for request in sample) / len(sample)
        limit = "no limit" if self.judge.max_dollars is None else f"limit ${self.judge.max_dollars:g} for the study"
        self.log(
            f"judge {self.judge.model}: {counted(len(self._pairs), 'answer pair')} in both orders; "
            f"{counted(len(keys), 'call')} to make, estimated cost ${each * len(keys):.4f}, "
            f"${self._dollars.sum():.4f} already spent ({limit})"
        )

    def _log_total(self) -> None:
        done = int((self._trials != UNJUDGED).all(axis=1).sum())
        result = f"{done:,} of {len(self._pairs):,} answer pairs judged, total cost ${self._dollars.sum():.4f}"
        self.log(f"judge {self.judge.model}: {result}{f'; stopped: {self.stopped}' if self.stopped else ''}")
