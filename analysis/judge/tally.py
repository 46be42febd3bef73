"""Tallies the trials of two methods: wins, ties and losses, with score, intervals and checks for bias."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import statistics
from ..statistics import Estimate
from . import winrate
from .trial import INVALID, LOSS, TIE, UNJUDGED, WIN

TOO_MANY_INVALID = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class Trials:
    """Trials of all answer pairs of two methods, one row per pair.

    `results` [n, 2]: WIN, TIE, LOSS of the treatment, INVALID or UNJUDGED, with the treatment presented first and
    second; `prompts` [n]: index of the prompt; `lengths` [n, 2]: characters of the treatment's and the baseline's
    answer; `identical` [n]: both answers are equal; `truncated` [n]: a text exceeds judge.max_chars.
    """

    treatment: str
    baseline: str
    results: np.ndarray
    prompts: np.ndarray
    lengths: np.ndarray
    identical: np.ndarray
    truncated: np.ndarray
    failures: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Verdicts of a judge on two methods from the treatment's side; shares count a tie as one half.

    `favors_first`, `favors_second`: pairs in which the answer presented first (second) won in both orders.
    """

    treatment: str
    baseline: str
    win: int
    tie: int
    loss: int
    invalid: int
    unjudged: int
    identical: int
    truncated: int
    prompts: int
    failures: dict[str, int]
    score: Estimate
    bounds: tuple[float, float] | None
    mean_of_orders: Estimate
    shown_first: Estimate
    shown_second: Estimate
    length_controlled: Estimate
    consistency: Estimate
    favors_first: int
    favors_second: int
    order_p: float | None
    sign_p: float | None
    e_value: float
    mean_chars: tuple[float, float] | None

    @property
    def judged(self) -> int:
        """Answer pairs with a verdict in both orders."""
        return self.win + self.tie + self.loss

    @property
    def tie_rate(self) -> float:
        """Share of ties among the judged answer pairs."""
        return self.tie / self.judged if self.judged else 0.0

    @property
    def invalid_rate(self) -> float:
        """Share of answer pairs without a verdict among those queried."""
        queried = self.judged + self.invalid
        return self.invalid / queried if queried else 0.0


def combine_orders(results: np.ndarray) -> np.ndarray:
    """Combine the results of both orders [n, 2] to one result per answer pair [n].

    The winner must be the same in both orders, else the pair is a tie. A pair without a verdict in one order is
    INVALID, never a tie; a pair that was not judged in both orders is UNJUDGED.
    """
    first, second = results[:, 0], results[:, 1]
    result = np.where(first == second, first, TIE)
    result = np.where((first == UNJUDGED) | (second == UNJUDGED), UNJUDGED, result)
    return np.where((first == INVALID) | (second == INVALID), INVALID, result)


def to_scores(results: np.ndarray) -> np.ndarray:
    """Convert WIN, TIE, LOSS to 1, 1/2, 0."""
    return (results.astype(float) + 1) / 2


def compute_tally(trials: Trials) -> Tally:
    """Tally the trials of two methods."""
    results = combine_orders(trials.results)
    valid = (results != INVALID) & (results != UNJUDGED)
    both, prompts, gaps = trials.results[valid], trials.prompts[valid], trials.lengths[valid]
    scores = to_scores(results[valid])
    win, tie, loss = (int((results == kind).sum()) for kind in (WIN, TIE, LOSS))
    invalid = int((results == INVALID).sum())
    favors_first, favors_second = _count_position_wins(both)
    wins, losses = winrate.net_signs(results[valid], prompts)
    return Tally(
        treatment=trials.treatment,
        baseline=trials.baseline,
        win=win,
        tie=tie,
        loss=loss,
        invalid=invalid,
        unjudged=int((results == UNJUDGED).sum()),
        identical=int((trials.identical & valid).sum()),
        truncated=int((trials.truncated & valid).sum()),
        prompts=len(np.unique(prompts)),
        failures=dict(sorted(Counter(kind for kind in trials.failures if kind).items())),
        score=_score(scores, prompts, invalid),
        bounds=_bounds(win + tie / 2, len(scores), invalid),
        mean_of_orders=winrate.clustered_share(to_scores(both).mean(axis=1), prompts),
        shown_first=winrate.clustered_share(to_scores(both[:, 0]), prompts),
        shown_second=winrate.clustered_share(to_scores(both[:, 1]), prompts),
        length_controlled=winrate.length_controlled_share(scores, (gaps[:, 0] - gaps[:, 1]).astype(float), prompts),
        consistency=_consistency(both[~trials.identical[valid]]),
        favors_first=favors_first,
        favors_second=favors_second,
        order_p=winrate.sign_test(favors_first, favors_second),
        sign_p=winrate.sign_test(wins, losses),
        e_value=winrate.e_value(wins, losses),
        mean_chars=(float(gaps[:, 0].mean()), float(gaps[:, 1].mean())) if len(gaps) else None,
    )


def _score(scores: np.ndarray, prompts: np.ndarray, invalid: int) -> Estimate:
    """Share of wins, a tie as one half; withheld if more than 5% of the pairs have no verdict."""
    if invalid > TOO_MANY_INVALID * (len(scores) + invalid):
        return Estimate(value=None, reason="too_many_invalid")
    return winrate.clustered_share(scores, prompts)


def _bounds(points: float, judged: int, invalid: int) -> tuple[float, float] | None:
    """Bounds of the score: the treatment loses, or wins, every pair without a verdict."""
    if judged + invalid == 0:
        return None
    return points / (judged + invalid), (points + invalid) / (judged + invalid)


def _count_position_wins(both: np.ndarray) -> tuple[int, int]:
    """Number of pairs whose winner changed with the order: the answer presented first won, and the one second."""
    first = (both[:, 0] == WIN) & (both[:, 1] == LOSS)
    second = (both[:, 0] == LOSS) & (both[:, 1] == WIN)
    return int(first.sum()), int(second.sum())


def _consistency(both: np.ndarray) -> Estimate:
    """Share of pairs with the same verdict in both orders, with Wilson's interval; identical answers excluded."""
    if len(both) == 0:
        return Estimate(value=None, reason="nothing_judged")
    return statistics.wilson(int((both[:, 0] == both[:, 1]).sum()), len(both))


def fit_ranking(matches: Sequence[Trials], methods: Sequence[str]) -> dict[tuple[str, str], Estimate]:
    """P(first beats second) under a Bradley-Terry model of all methods; empty for fewer than three methods."""
    if len(methods) < 3:
        return {}
    index = {name: i for i, name in enumerate(methods)}
    parts = []
    for match in matches:
        results = combine_orders(match.results)
        valid = (results != INVALID) & (results != UNJUDGED)
        count = int(valid.sum())
        parts.append(
            (
                to_scores(results[valid]),
                np.full(count, index[match.treatment]),
                np.full(count, index[match.baseline]),
                match.prompts[valid],
            )
        )
    values, first, second, prompts = (np.concatenate(column) for column in zip(*parts, strict=True))
    fitted = winrate.fit_bradley_terry(values, first, second, prompts, len(methods))
    return {
        (match.treatment, match.baseline): Estimate(value=None, reason=fitted)
        if isinstance(fitted, str)
        else winrate.win_probability(*fitted, index[match.treatment], index[match.baseline])
        for match in matches
    }
