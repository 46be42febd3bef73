"""From games to numbers: wins, ties and losses of one method against another, and what they are worth."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import statistics
from ..statistics import Estimate
from . import winrate
from .trial import INVALID, LOSS, TIE, UNJUDGED, WIN

TOO_MANY_INVALID = 0.05
SCORE = {WIN: 1.0, TIE: 0.5, LOSS: 0.0}


@dataclass(frozen=True, kw_only=True, eq=False)
class Trials:
    """All pairs of two methods, one row each.

    `games` [n, 2]: WIN, TIE, LOSS of the treatment, INVALID or UNJUDGED, with the treatment shown first and second;
    `prompts` [n]: which prompt, as a number; `lengths` [n, 2]: characters of the treatment's and the baseline's
    answer; `identical`, `cut` [n]: the same answer twice; one longer than the judge is shown.
    """

    treatment: str
    baseline: str
    games: np.ndarray
    prompts: np.ndarray
    lengths: np.ndarray
    identical: np.ndarray
    cut: np.ndarray
    troubles: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What the judge said of two methods, from the treatment's side. Shares count a tie half; None says why."""

    treatment: str
    baseline: str
    win: int
    tie: int
    loss: int
    invalid: int
    unjudged: int
    identical: int
    cut: int
    prompts: int
    troubles: dict[str, int]
    score: Estimate
    bounds: tuple[float, float] | None
    mean_of_orders: Estimate
    shown_first: Estimate
    shown_second: Estimate
    length_controlled: Estimate
    consistency: Estimate
    first: int
    second: int
    order_p: float | None
    sign_p: float | None
    e_value: float
    mean_chars: tuple[float, float] | None

    @property
    def judged(self) -> int:
        """Pairs with a verdict in both orders."""
        return self.win + self.tie + self.loss

    @property
    def tie_rate(self) -> float:
        """Share of ties among the judged pairs."""
        return self.tie / self.judged if self.judged else 0.0

    @property
    def invalid_rate(self) -> float:
        """Share of pairs to which the judge gave no verdict."""
        asked = self.judged + self.invalid
        return self.invalid / asked if asked else 0.0


def strict(games: np.ndarray) -> np.ndarray:
    """One result for each pair [n] from its two games [n, 2].

    Both orders must name the same winner, else it is a tie; without a verdict in one order the pair is INVALID, never a
    tie; a pair that was not asked in both is UNJUDGED.
    """
    first, second = games[:, 0], games[:, 1]
    result = np.where(first == second, first, TIE)
    result = np.where((first == UNJUDGED) | (second == UNJUDGED), UNJUDGED, result)
    return np.where((first == INVALID) | (second == INVALID), INVALID, result)


def shares(results: np.ndarray) -> np.ndarray:
    """WIN, TIE, LOSS as 1, 1/2, 0."""
    return (results.astype(float) + 1) / 2


def tally(played: Trials) -> Tally:
    """Count one pair of methods."""
    results = strict(played.games)
    valid = (results != INVALID) & (results != UNJUDGED)
    games, prompts, gaps = played.games[valid], played.prompts[valid], played.lengths[valid]
    scores = shares(results[valid])
    win, tie, loss = (int((results == kind).sum()) for kind in (WIN, TIE, LOSS))
    invalid = int((results == INVALID).sum())
    first, second = _one_sided(games)
    wins, losses = winrate.net_signs(results[valid], prompts)
    return Tally(
        treatment=played.treatment,
        baseline=played.baseline,
        win=win,
        tie=tie,
        loss=loss,
        invalid=invalid,
        unjudged=int((results == UNJUDGED).sum()),
        identical=int((played.identical & valid).sum()),
        cut=int((played.cut & valid).sum()),
        prompts=len(np.unique(prompts)),
        troubles=dict(sorted(Counter(word for word in played.troubles if word).items())),
        score=_score(scores, prompts, invalid),
        bounds=_bounds(win + tie / 2, len(scores), invalid),
        mean_of_orders=winrate.share(shares(games).mean(axis=1), prompts),
        shown_first=winrate.share(shares(games[:, 0]), prompts),
        shown_second=winrate.share(shares(games[:, 1]), prompts),
        length_controlled=winrate.length_controlled(scores, (gaps[:, 0] - gaps[:, 1]).astype(float), prompts),
        consistency=_consistency(games[~played.identical[valid]]),
        first=first,
        second=second,
        order_p=winrate.sign_test(first, second),
        sign_p=winrate.sign_test(wins, losses),
        e_value=winrate.e_value(wins, losses),
        mean_chars=(float(gaps[:, 0].mean()), float(gaps[:, 1].mean())) if len(gaps) else None,
    )


def _score(scores: np.ndarray, prompts: np.ndarray, invalid: int) -> Estimate:
    """The share of wins, ties half; withheld where more than 5% of the pairs are without a verdict."""
    if invalid > TOO_MANY_INVALID * (len(scores) + invalid):
        return Estimate(value=None, reason="too_many_invalid")
    return winrate.share(scores, prompts)


def _bounds(points: float, judged: int, invalid: int) -> tuple[float, float] | None:
    """The score if the treatment had lost, or won, every pair without a verdict."""
    if judged + invalid == 0:
        return None
    return points / (judged + invalid), (points + invalid) / (judged + invalid)


def _one_sided(games: np.ndarray) -> tuple[int, int]:
    """Pairs whose winner changed with the order: won by whatever was shown first, and by whatever was shown second."""
    first = (games[:, 0] == WIN) & (games[:, 1] == LOSS)
    second = (games[:, 0] == LOSS) & (games[:, 1] == WIN)
    return int(first.sum()), int(second.sum())


def _consistency(games: np.ndarray) -> Estimate:
    """How often both orders give the same verdict, with Wilson's interval; pairs settled without a call left out."""
    if len(games) == 0:
        return Estimate(value=None, reason="nothing_judged")
    return statistics.wilson(int((games[:, 0] == games[:, 1]).sum()), len(games))


def ranking(played: Sequence[Trials], methods: Sequence[str]) -> dict[tuple[str, str], Estimate]:
    """P(the first method beats the second) by Bradley and Terry over all pairs together; for three methods or more."""
    if len(methods) < 3:
        return {}
    index = {name: place for place, name in enumerate(methods)}
    parts = []
    for match in played:
        results = strict(match.games)
        valid = (results != INVALID) & (results != UNJUDGED)
        count = int(valid.sum())
        parts.append(
            (
                shares(results[valid]),
                np.full(count, index[match.treatment]),
                np.full(count, index[match.baseline]),
                match.prompts[valid],
            )
        )
    values, first, second, prompts = (np.concatenate(column) for column in zip(*parts, strict=True))
    fitted = winrate.strengths(values, first, second, prompts, len(methods))
    return {
        (match.treatment, match.baseline): Estimate(value=None, reason=fitted)
        if isinstance(fitted, str)
        else winrate.beats(*fitted, index[match.treatment], index[match.baseline])
        for match in played
    }
