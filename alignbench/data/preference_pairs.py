"""Scored preference pairs; drops rows that are blank, unscored, identical, tied, reversed or repeated."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan, nan
from numbers import Real

from alignbench.core.errors import UserError
from alignbench.data.answers import extract_answer
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
    """A prompt with the preferred and the rejected answer."""

    prompt: str
    chosen: str
    rejected: str
    score: float
    """Score of the chosen answer, from 0 to 10; NaN where it is missing."""
    margin: float
    """Score of the chosen minus that of the rejected answer; NaN where one is missing."""

    @cached_property
    def key(self) -> str:
        """The normalized prompt, by which repeated prompts are found."""
        return normalized(self.prompt)


def select_pairs(records: Sequence[Record]) -> tuple[list[Pair], Counter[str]]:
    """The valid pairs, one for each prompt, and the number of rows dropped for each reason in FLAWS.

    Of several pairs with one prompt the one with the largest margin is kept, whatever the order of the rows. Raises
    UserError with the file and line for a missing column or a score outside 0 to 10.
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
            f"{record.where}: score_chosen is {better:g}, but scores must be from {LOWEST:g} to {HIGHEST:g}: "
            "rescale them"
        )
    return Pair(prompt, extract_answer(record, "chosen"), extract_answer(record, "rejected"), better, better - worse)


def _score(record: Record, name: str) -> float:
    """A score from its own column or from `metadata`; NaN for an empty cell."""
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
