"""Judges all pairs: what is in the cache first, the rest side by side until all are judged or something stops it."""

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
from .spending_limit import SpendingLimit, expected_price, price
from .trial import INVALID, TIE, UNJUDGED, Trial
from .verdicts import Reply

Log = Callable[[str], None]
Place = tuple[int, Order]


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdicts:
    """What the judge said. `games` [pairs, 2]: of each pair, with the treatment shown first and with it second.

    `calls`, `dollars` [pairs]: what each pair took; a call that serves several pairs is counted with the first.
    """

    games: np.ndarray
    troubles: tuple[str, ...]
    cut: np.ndarray
    calls: np.ndarray
    dollars: np.ndarray
    models: tuple[str, ...]
    shutdown_date: str | None
    stopped: str | None


class Session:
    """One judge at work on one list of pairs."""

    def __init__(self, judge: Judge, pairs: Sequence[AnswerPair], cache: Cache, log: Log) -> None:
        self.judge, self.cache, self.log = judge, cache, log
        self.stopped: str | None = None
        self._pairs, self._template = pairs, Template(judge)
        self._games = np.full((len(pairs), 2), UNJUDGED, dtype=np.int8)
        self._troubles = [""] * len(pairs)
        self._counted: set[str] = set()
        self._models: set[str] = set()
        self._calls, self._dollars = np.zeros(len(pairs), dtype=int), np.zeros(len(pairs))

    def run(self, check_date: Callable[[str | None], None]) -> Verdicts:
        """Every verdict there is or can be had; `check_date` refuses a model that the endpoint says is gone.

        Raises UserError when the endpoint gave not even one.
        """
        places = [(i, order) for i in range(len(self._pairs)) for order in ORDERS if not self._recall(i, order)]
        if places:
            self._announce(places)
            if self.judge.mode == "ask":
                asyncio.run(self._ask(places, check_date))
            else:
                self.stopped = "judge.mode=cache_only, and not all was judged before"
            self._account()
        return Verdicts(
            games=self._games,
            troubles=tuple(self._troubles),
            cut=np.array([self._template.is_cut(pair) for pair in self._pairs], dtype=bool),
            calls=self._calls,
            dollars=self._dollars,
            models=tuple(sorted(self._models - {""})),
            shutdown_date=self.cache.shutdown_date(self.judge.base_url, self.judge.model) or self.judge.shutdown_date,
            stopped=self.stopped,
        )

    def game(self, place: Place) -> Trial:
        """A pair in one order, from its beginning."""
        i, order = place
        return Trial(self._template, self._pairs[i], order)

    def count(self, place: Place, request: Request, reply: Reply) -> None:
        """A call is counted once, however many pairs it serves."""
        if request.key not in self._counted:
            self._counted.add(request.key)
            self._models.add(reply.model)
            self._calls[place[0]] += 1
            self._dollars[place[0]] += price(reply, self.judge.prices)

    def settle(self, place: Place, game: Trial) -> None:
        """Write down how a game ended."""
        i, order = place
        self._games[i, order] = game.result
        if game.result == INVALID:
            self._troubles[i] = str(game.outcome)

    def _recall(self, i: int, order: Order) -> bool:
        """Whether a game could be settled without asking anybody."""
        if self._pairs[i].identical:
            self._games[i, order] = TIE
            return True
        game = self.game((i, order))
        while game.outcome is None:
            request = game.request
            reply = self.cache.get(request.key)
            if reply is None:
                return False
            self.count((i, order), request, reply)
            game.add_reply(reply)
        self.settle((i, order), game)
        return True

    async def _ask(self, places: Sequence[Place], check_date: Callable[[str | None], None]) -> None:
        endpoint = Endpoint(self.judge)
        try:
            date = await endpoint.shutdown_date()
            check_date(date)
            self.cache.keep_shutdown_date(self.judge.base_url, self.judge.model, date)
            buyer = CallWorker(
                self, endpoint, SpendingLimit(self.judge.max_dollars, float(self._dollars.sum())), len(places)
            )
            queue = iter(sorted(places, key=lambda place: (place[0], place[1] != self._starts_with(place[0]))))
            await asyncio.gather(*(buyer.work(queue) for _ in range(self.judge.concurrency)))
        finally:
            await endpoint.close()
        if self.stopped and buyer.failed and not self._counted:
            raise UserError(f"nothing could be judged: {self.stopped}")

    def _starts_with(self, i: int) -> Order:
        """Which order of a pair is asked first: by hash, so that no method always goes first."""
        return ORDERS[sha256(f"{self._pairs[i].seed}/{self._pairs[i].prompt_id}".encode()).digest()[0] % 2]

    def _announce(self, places: Sequence[Place]) -> None:
        some = [self.game(place).request for place in places[:: max(1, len(places) // 200)]]
        each = sum(expected_price(request, self.judge) for request in some) / len(some)
        limit = "no limit" if self.judge.max_dollars is None else f"limit ${self.judge.max_dollars:g} for the study"
        self.log(
            f"judge {self.judge.model}: {counted(len(self._pairs), 'pair')} in both orders; "
            f"{counted(len(places), 'call')} to make, about ${each * len(places):.4f} beside "
            f"${self._dollars.sum():.4f} paid before ({limit})"
        )

    def _account(self) -> None:
        done = int((self._games != UNJUDGED).all(axis=1).sum())
        known = f"{done:,} of {len(self._pairs):,} pairs judged, ${self._dollars.sum():.4f} in all"
        self.log(f"judge {self.judge.model}: {known}{f'; stopped: {self.stopped}' if self.stopped else ''}")
