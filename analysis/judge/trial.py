"""One trial: an answer pair presented to the judge in one order, repeated until a verdict is returned."""

from .answer_pairs import AnswerPair
from .prompt import Order, Request, Template
from .verdicts import VERDICTS, Outcome, Reply, parse_verdict

WIN, TIE, LOSS, INVALID, UNJUDGED = 1, 0, -1, 2, 3
"""Result of a trial from the treatment's side."""


class Trial:
    """A trial ends with a verdict, or with a failure when all attempts (1 + judge.reasks) are used."""

    def __init__(self, template: Template, pair: AnswerPair, order: Order) -> None:
        self._template, self._pair, self._order = template, pair, order
        self._attempt = 0
        self.outcome: Outcome | None = None

    @property
    def request(self) -> Request:
        """The request of the current attempt."""
        return self._template.request(self._pair, self._order, self._attempt)

    def add_reply(self, reply: Reply) -> None:
        """Add a reply: a verdict ends the trial, a failure ends it if no attempt is left."""
        outcome = parse_verdict(reply)
        if outcome in VERDICTS or self._attempt >= self._template.judge.reasks:
            self.outcome = outcome
        self._attempt += 1

    @property
    def result(self) -> int:
        """WIN, TIE or LOSS of the treatment; INVALID without a verdict, UNJUDGED while the trial has not ended."""
        if self.outcome is None:
            return UNJUDGED
        if self.outcome not in VERDICTS:
            return INVALID
        if self.outcome == "tie":
            return TIE
        return WIN if self.outcome == ("A", "B")[self._order] else LOSS
