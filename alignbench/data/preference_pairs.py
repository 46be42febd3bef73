"""Preference pairs with scores, and why a row is none: blank, identical, tied, reversed, repeated."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan, nan
from numbers import Real

from alignbench.core.errors import UserError
from alignbench.data.answers import answer
from alignbench.data.source import Record
from alignbench.data.splits import normalized

BLANK, UNSCORED, IDENTICAL, TIED, REVERSED, REPEATED = FLAWS = (
    "dropped: blank prompt or answer",
    "dropped: a score is missing",
    "dropped: both answers identical",
    "dropped: both scores equal",
    "dropped: chosen scored below rejected",
    "dropped: prompt stands there twice",
)
LOWEST, HIGHEST = 0.0, 10.0


@dataclass(frozen=True)
class Pair:
    """A prompt with the answer that was preferred and the one that was not."""

    prompt: str
    chosen: str
    rejected: str
    score: float
    """How good the chosen answer is, from 0 to 10; nan where nobody said."""
    margin: float
    """By how much its score is above the other's; nan where one is missing."""

    @cached_property
    def key(self) -> str:
        """What two pairs of the same prompt share."""
        return normalized(self.prompt)


def usable(records: Sequence[Record]) -> tuple[list[Pair], Counter[str]]:
    """The pairs that prefer something, one for each prompt, and how many rows were dropped for each of FLAWS.

    Where a prompt stands in several rows, the pair of the largest margin stays, whatever the order of the rows.
    Raises UserError naming the place for a missing column or a score that is not on the scale from 0 to 10.
    """
    dropped = Counter(dict.fromkeys(FLAWS, 0))
    best: dict[str, Pair] = {}
    for record in records:
        pair = _pair(record)
        flaw = _flaw(pair)
        if flaw is None and pair.key in best:
            pair, flaw = max(best[pair.key], pair, key=_strength), REPEATED
            best[pair.key] = pair
        if flaw is None:
            best[pair.key] = pair
        else:
            dropped[flaw] += 1
    return list(best.values()), dropped


def _pair(record: Record) -> Pair:
    prompt = record["prompt"]
    if not isinstance(prompt, str):
        raise UserError(f"{record.where}: column 'prompt' must be a text, found {prompt!r:.60}")
    better, worse = _score(record, "score_chosen"), _score(record, "score_rejected")
    if not isnan(better) and not LOWEST <= better <= HIGHEST:
        raise UserError(
            f"{record.where}: score_chosen is {better:g}, but scores go from {LOWEST:g} to {HIGHEST:g}: "
            "bring them to that scale"
        )
    return Pair(prompt, answer(record, "chosen"), answer(record, "rejected"), better, better - worse)


def _score(record: Record, name: str) -> float:
    """A score from its own column or from `metadata`; nan where the cell is empty."""
    nested = record.columns.get("metadata")
    columns = {**(nested if isinstance(nested, Mapping) else {}), **record.columns}
    if name in columns and columns[name] is None:
        return nan
    value = Record(record.where, columns)[name]
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UserError(f"{record.where}: {name} must be a number, found {value!r:.60}")
    return float(value)


def _flaw(pair: Pair) -> str | None:
    if not (pair.key and pair.chosen.strip() and pair.rejected.strip()):
        return BLANK
    if isnan(pair.margin):
        return UNSCORED
    if pair.chosen.strip() == pair.rejected.strip():
        return IDENTICAL
    if pair.margin <= 0:
        return REVERSED if pair.margin else TIED
    return None


def _strength(pair: Pair) -> tuple[float, str, str, str]:
    return pair.margin, pair.chosen, pair.rejected, pair.prompt
