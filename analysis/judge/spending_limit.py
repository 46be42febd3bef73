"""Cost of judging: price of a reply, cost estimate of a request, and a spending limit that is never exceeded."""

import asyncio
from dataclasses import dataclass, field

from alignbench.core.judge_settings import Judge, Prices

from .prompt import Request
from .verdicts import Reply

MILLION = 1_000_000
CHARACTERS_PER_TOKEN = 4
TYPICAL_VERDICT_TOKENS = 190  # tokens of a verdict with a few sentences of reasoning


def compute_price(reply: Reply, prices: Prices) -> float:
    """Price of a reply in dollars; cached input tokens have their own price."""
    fresh = max(0, reply.input_tokens - reply.cached_tokens)
    tokens = fresh * prices.input + reply.cached_tokens * prices.cached_input + reply.output_tokens * prices.output
    return tokens / MILLION


def expected_price(request: Request, judge: Judge) -> float:
    """Expected price of a request in dollars: four characters per token, and a verdict of typical length."""
    output_tokens = min(TYPICAL_VERDICT_TOKENS, judge.max_completion_tokens)
    return (request.size / CHARACTERS_PER_TOKEN * judge.prices.input + output_tokens * judge.prices.output) / MILLION


def highest_price(request: Request, judge: Judge) -> float:
    """Upper bound on the price of a request in dollars: one token per byte, and the limit on completion tokens.

    100 tokens are added for the chat template of the server.
    """
    tokens = (request.size + 100) * judge.prices.input + judge.max_completion_tokens * judge.prices.output
    return tokens / MILLION


@dataclass
class SpendingLimit:
    """Spending limit of one judge in dollars. Each call reserves its maximum price, so the limit is never exceeded.

    A call that does not fit waits for the pending calls, which usually cost less than they reserved; it is rejected
    only if no call is pending. The number of affordable calls therefore does not depend on the concurrency.
    """

    limit: float | None
    spent: float = 0.0
    _reserved: float = 0.0
    _pending: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def reserve(self, amount: float) -> bool:
        """Reserve the maximum price of a call; returns False if the limit does not allow it."""
        async with self._changed:
            while self.limit is not None and self.spent + self._reserved + amount > self.limit:
                if not self._pending:
                    return False
                await self._changed.wait()
            self._reserved += amount
            self._pending += 1
            return True

    async def release(self, amount: float, cost: float) -> None:
        """Release a reservation and record the actual cost."""
        async with self._changed:
            self._pending -= 1
            self._reserved = self._reserved - amount if self._pending else 0.0
            self.spent += cost
            self._changed.notify_all()
