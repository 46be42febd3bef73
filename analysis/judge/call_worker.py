"""Makes the calls that are not cached: each request once, within the spending limit, cached before it is used."""

import asyncio
from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING

from .endpoint import Endpoint, EndpointUnavailable, RequestRejected
from .prompt import Order, Request
from .spending_limit import SpendingLimit, compute_price, highest_price
from .verdicts import Reply

if TYPE_CHECKING:
    from .session import Session

MAX_UNANSWERED = 3  # consecutive calls without a response after which the endpoint is considered down
PROGRESS_INTERVAL = 0.1  # fraction of the calls between two progress messages


class CallWorker:
    """Shared state of the concurrent workers of a session.

    `failed` is True when the endpoint, not the spending limit, stopped the workers. `calls` is the number of calls
    to make if every first attempt gives a verdict.
    """

    def __init__(self, session: "Session", endpoint: Endpoint, limit: SpendingLimit, calls: int) -> None:
        self.failed = False
        self._session, self._endpoint, self._limit = session, endpoint, limit
        self._pending: dict[str, asyncio.Future[Reply | None]] = {}
        self._unanswered = self._completed = 0
        self._calls = calls

    async def work(self, queue: Iterator[tuple[int, Order]]) -> None:
        """Run trials until the queue is empty or the session has stopped."""
        session = self._session
        for key in queue:
            trial = session.make_trial(key)
            while trial.outcome is None:
                request = trial.request
                reply = session.cache.get(request.key) or await self._send_once(request)
                if reply is None:
                    break
                session.count_call(key, request, reply)
                trial.add_reply(reply)
            session.record(key, trial)
            if session.stopped:
                return

    async def _send_once(self, request: Request) -> Reply | None:
        """Send a request once, also if two workers need it at the same time."""
        if request.key not in self._pending:
            self._pending[request.key] = asyncio.ensure_future(self._send(request))
        return await self._pending[request.key]

    async def _send(self, request: Request) -> Reply | None:
        """Send a request and cache the reply; None if the limit is reached, no reply arrives or judging stopped."""
        session, amount = self._session, highest_price(request, self._session.judge)
        if session.stopped or not await self._limit.reserve(amount):
            session.stopped = session.stopped or f"judge.max_dollars={session.judge.max_dollars:g} is reached"
            return None
        start, reply, cost = perf_counter(), None, 0.0
        try:
            received = await self._endpoint.send(request)
            reply, cost = received.reply, compute_price(received.reply, session.judge.prices)
            session.cache.put(request.key, reply, request.body, received.raw, perf_counter() - start)
            self._unanswered, self._completed = 0, self._completed + 1
        except RequestRejected as error:
            self._stop(str(error))
        except EndpointUnavailable as error:
            self._unanswered += 1
            if self._unanswered >= MAX_UNANSWERED:
                self._stop(f"{session.judge.base_url} does not respond ({error})")
        finally:
            await self._limit.release(amount, cost)
        if reply and self._completed % max(1, round(PROGRESS_INTERVAL * self._calls)) == 0:
            session.log(f"judge {session.judge.model}: {self._completed:,} of {self._calls:,} calls made")
        return reply

    def _stop(self, reason: str) -> None:
        """Stop making calls; the replies of pending calls are still used, because they are paid for."""
        self.failed = True
        self._session.stopped = self._session.stopped or reason
