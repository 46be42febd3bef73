"""Makes the calls that the cache does not know: each one once, within the money there is, on disk before it is used."""

import asyncio
from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING

from .endpoint import Endpoint, EndpointUnavailable, RequestRejected
from .prompt import Order, Request
from .spending_limit import SpendingLimit, highest_price, price
from .verdicts import Reply

if TYPE_CHECKING:
    from .session import Session

PATIENCE = 3  # calls in a row without any answer after which the endpoint is taken to be down
TENTH = 0.1  # of the calls, between two lines about how far it is


class CallWorker:
    """What the workers of a session share; `failed` says that the endpoint, not the money, stopped them.

    `calls` is how many there are to make, if each gets its verdict at once.
    """

    def __init__(self, session: "Session", endpoint: Endpoint, purse: SpendingLimit, calls: int) -> None:
        self.failed = False
        self._session, self._endpoint, self._purse = session, endpoint, purse
        self._under_way: dict[str, asyncio.Future[Reply | None]] = {}
        self._silent = self._bought = 0
        self._calls = calls

    async def work(self, queue: Iterator[tuple[int, Order]]) -> None:
        """Play games until there is none left, or until the session has stopped."""
        session = self._session
        for place in queue:
            game = session.game(place)
            while game.outcome is None:
                request = game.request
                reply = session.cache.get(request.key) or await self._once(request)
                if reply is None:
                    break
                session.count(place, request, reply)
                game.add_reply(reply)
            session.settle(place, game)
            if session.stopped:
                return

    async def _once(self, request: Request) -> Reply | None:
        """The same question from two workers is one call."""
        if request.key not in self._under_way:
            self._under_way[request.key] = asyncio.ensure_future(self._buy(request))
        return await self._under_way[request.key]

    async def _buy(self, request: Request) -> Reply | None:
        """Ask, keep the reply, pay. None when there is no money, no answer, or no sense in asking on."""
        session, amount = self._session, highest_price(request, self._session.judge)
        if session.stopped or not await self._purse.set_aside(amount):
            session.stopped = session.stopped or f"judge.max_dollars={session.judge.max_dollars:g} is reached"
            return None
        start, reply, cost = perf_counter(), None, 0.0
        try:
            bought = await self._endpoint.ask(request)
            reply, cost = bought.reply, price(bought.reply, session.judge.prices)
            session.cache.put(request.key, reply, request.body, bought.raw, perf_counter() - start)
            self._silent, self._bought = 0, self._bought + 1
        except RequestRejected as error:
            self._stop(str(error))
        except EndpointUnavailable as error:
            self._silent += 1
            if self._silent >= PATIENCE:
                self._stop(f"{session.judge.base_url} does not answer ({error})")
        finally:
            await self._purse.settle(amount, cost)
        if reply and self._bought % max(1, round(TENTH * self._calls)) == 0:
            session.log(f"judge {session.judge.model}: {self._bought:,} of {self._calls:,} calls made")
        return reply

    def _stop(self, reason: str) -> None:
        """Nothing more is asked; calls that are under way are still heard, for they are paid."""
        self.failed = True
        self._session.stopped = self._session.stopped or reason
