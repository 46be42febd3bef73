"""One game: a pair shown to the judge in one order, asked again while no verdict comes back."""

from .answer_pairs import AnswerPair
from .prompt import Order, Request, Template
from .verdicts import VERDICTS, Outcome, Reply, read

WIN, TIE, LOSS, INVALID, UNJUDGED = 1, 0, -1, 2, 3
"""What a game says of the treatment."""


class Trial:
    """Asks, hears, and is over when there is a verdict or when it asked often enough."""

    def __init__(self, template: Template, pair: AnswerPair, order: Order) -> None:
        self._template, self._pair, self._order = template, pair, order
        self._attempt = 0
        self.outcome: Outcome | None = None

    @property
    def request(self) -> Request:
        """The next call to make."""
        return self._template.request(self._pair, self._order, self._attempt)

    def add_reply(self, reply: Reply) -> None:
        """Take a reply: a verdict ends the game, trouble ends it when there is no attempt left."""
        outcome = read(reply)
        if outcome in VERDICTS or self._attempt >= self._template.judge.reasks:
            self.outcome = outcome
        self._attempt += 1

    @property
    def result(self) -> int:
        """WIN, TIE or LOSS of the treatment; INVALID without a verdict, UNJUDGED while the game is not over."""
        if self.outcome is None:
            return UNJUDGED
        if self.outcome not in VERDICTS:
            return INVALID
        if self.outcome == "tie":
            return TIE
        return WIN if self.outcome == ("A", "B")[self._order] else LOSS
