"""What judging costs: a price for each reply, an estimate before, and a limit that is never passed."""

import asyncio
from dataclasses import dataclass, field

from alignbench.core.judge_settings import Judge, Prices

from .prompt import Request
from .verdicts import Reply

MILLION = 1_000_000
CHARACTERS_PER_TOKEN = 4
TYPICAL_VERDICT = 190  # tokens of a verdict with a few sentences of reasoning


def price(reply: Reply, prices: Prices) -> float:
    """Dollars for one reply: what the provider had in its own cache is cheaper."""
    fresh = max(0, reply.input_tokens - reply.cached_tokens)
    tokens = fresh * prices.input + reply.cached_tokens * prices.cached_input + reply.output_tokens * prices.output
    return tokens / MILLION


def expected_price(request: Request, judge: Judge) -> float:
    """Dollars that a call will probably cost: four characters a token, and a verdict of usual length."""
    written = min(TYPICAL_VERDICT, judge.max_completion_tokens)
    return (request.size / CHARACTERS_PER_TOKEN * judge.prices.input + written * judge.prices.output) / MILLION


def highest_price(request: Request, judge: Judge) -> float:
    """Dollars that a call cannot exceed: no token is shorter than a byte, and what is written is limited.

    100 tokens more for what a server wraps around each message.
    """
    tokens = (request.size + 100) * judge.prices.input + judge.max_completion_tokens * judge.prices.output
    return tokens / MILLION


@dataclass
class SpendingLimit:
    """Money for one judge. Each call first sets aside the most it can cost, so that the limit is never passed.

    A call that does not fit waits for those under way, which mostly cost less than was set aside; only when none is
    under way the purse is empty. So the same money goes equally far however many calls run side by side.
    """

    limit: float | None
    spent: float = 0.0
    _aside: float = 0.0
    _under_way: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def set_aside(self, amount: float) -> bool:
        """Whether there is money for a call of this price; if so it is set aside."""
        async with self._changed:
            while self.limit is not None and self.spent + self._aside + amount > self.limit:
                if not self._under_way:
                    return False
                await self._changed.wait()
            self._aside += amount
            self._under_way += 1
            return True

    async def settle(self, amount: float, cost: float) -> None:
        """Give back what was set aside, and pay what it really cost."""
        async with self._changed:
            self._under_way -= 1
            self._aside = self._aside - amount if self._under_way else 0.0
            self.spent += cost
            self._changed.notify_all()
