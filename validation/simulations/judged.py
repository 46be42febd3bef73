"""Contests before a simulated judge whose biases are known: do scores of both orders, and of one, hold the truth?"""

from dataclasses import dataclass

import numpy as np

from analysis.judge.tally import combine_orders, compute_tally, to_scores
from analysis.judge.winrate import clustered_share
from analysis.statistics import Estimate
from validation.simulations.simulated_judge import Contest, Taste, simulate

CONTESTS: dict[str, tuple[Contest, Taste]] = {
    "fair judge, equal methods": (Contest(), Taste()),
    "fair judge, real gap": (Contest(gap=0.4), Taste()),
    "likes what is first, equal methods": (Contest(), Taste(position=0.4)),
    "likes what is first, real gap": (Contest(gap=0.4), Taste(position=0.4)),
    "likes what is second, real gap": (Contest(gap=0.4), Taste(position=-0.4)),
    "noisy, likes what is first, real gap": (Contest(gap=0.4), Taste(position=0.6, noise=2.0)),
    "likes length and what is first, real gap": (Contest(gap=0.4), Taste(position=0.3, verbosity=0.4)),
    "likes what is first very much, real gap": (Contest(gap=0.4), Taste(position=0.8)),
    "may call a tie, likes what is first, real gap": (Contest(gap=0.4), Taste(position=0.4, tie=0.3)),
    "likes length, the better method writes longer": (
        Contest(gap=0.4, longer=0.6), Taste(position=0.3, verbosity=0.4)),
}  # fmt: skip
"""Three seeds on 200 prompts each. Gaps, likings and spreads are in units of an ordinary judge's noise."""

WHY = {
    "likes what is first very much, real gap": "asking in both orders takes a bias away between equal methods; between "
    "unequal ones it leaves the score a little closer to 50% than a fair judge's, the more the stronger the bias",
    "may call a tie, likes what is first, real gap": "the strict rule counts a win in one order and a tie in the other "
    "as a tie, which draws the score to 50%; the mean of both orders counts it as three quarters",
    "likes length, the better method writes longer": "both orders cannot show a liking for length; the score at equal "
    "length can, and so the report prints mean lengths beside it",
}


@dataclass(frozen=True)
class Score:
    """The mean of a score over all contests, and in percent how often its interval held the truth."""

    mean: float
    held: float


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One kind of contest: what a fair judge would say in the long run, and each score."""

    truth: float
    strict: Score
    mean_of_orders: Score
    one_order: Score
    equal_length: Score | None


def judged(contest: Contest, taste: Taste, repeats: int, rng: np.random.Generator) -> Judged:
    """All scores of many contests; the length-controlled one, which is slow, where length matters and of some only."""
    truth = Taste(noise=taste.noise, tie=taste.tie).true_share(contest.gap, contest.spread)
    both, mean, one, equal = (list[Estimate]() for _ in range(4))
    for place in range(repeats):
        trials = simulate(contest, taste, rng)
        both.append(clustered_share(to_scores(combine_orders(trials.results)), trials.prompts))
        mean.append(clustered_share(to_scores(trials.results).mean(1), trials.prompts))
        one.append(clustered_share(to_scores(trials.results[:, 0]), trials.prompts))
        if taste.verbosity and place % 4 == 0:
            equal.append(compute_tally(trials).length_controlled)
    return Judged(
        truth=100 * truth,
        strict=_score(both, truth),
        mean_of_orders=_score(mean, truth),
        one_order=_score(one, truth),
        equal_length=_score(equal, truth) if equal else None,
    )


def _score(estimates: list[Estimate], truth: float) -> Score:
    inside = [e.low is not None and e.high is not None and e.low <= truth <= e.high for e in estimates]
    return Score(100 * float(np.mean([e.value for e in estimates])), 100 * float(np.mean(inside)))
