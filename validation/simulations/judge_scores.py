"""Coverage of the judge's scores, from both orders and from one, for a simulated judge with known biases."""

from dataclasses import dataclass

import numpy as np

from analysis.judge.tally import combine_orders, compute_tally, to_scores
from analysis.judge.winrate import clustered_share
from analysis.statistics import Estimate
from validation.simulations.simulated_judge import JudgeModel, MethodPair, simulate

CASES: dict[str, tuple[MethodPair, JudgeModel]] = {
    "unbiased, equal methods": (MethodPair(), JudgeModel()),
    "unbiased, real gap": (MethodPair(gap=0.4), JudgeModel()),
    "prefers the first, equal methods": (MethodPair(), JudgeModel(position=0.4)),
    "prefers the first, real gap": (MethodPair(gap=0.4), JudgeModel(position=0.4)),
    "prefers the second, real gap": (MethodPair(gap=0.4), JudgeModel(position=-0.4)),
    "noisy, prefers the first, real gap": (MethodPair(gap=0.4), JudgeModel(position=0.6, noise=2.0)),
    "prefers longer answers and the first, real gap": (MethodPair(gap=0.4), JudgeModel(position=0.3, verbosity=0.4)),
    "strongly prefers the first, real gap": (MethodPair(gap=0.4), JudgeModel(position=0.8)),
    "allows ties, prefers the first, real gap": (MethodPair(gap=0.4), JudgeModel(position=0.4, tie=0.3)),
    "prefers longer answers, the better method's are longer": (
        MethodPair(gap=0.4, longer=0.6), JudgeModel(position=0.3, verbosity=0.4)),
}  # fmt: skip
"""Three seeds on 200 prompts each. Gaps, biases and spreads are in units of the noise of a standard judge."""

REASONS = {
    "strongly prefers the first, real gap": "querying both orders cancels position bias between equal methods; between "
    "unequal methods it shifts the score towards 50%, more for a stronger bias",
    "allows ties, prefers the first, real gap": "the strict rule counts a win in one order and a tie in the other as a "
    "tie, which shifts the score towards 50%; the mean of both orders counts it as 0.75",
    "prefers longer answers, the better method's are longer": "querying both orders does not detect verbosity bias; "
    "the score at equal length does, and the report also prints mean lengths",
}


@dataclass(frozen=True)
class Score:
    """The mean of a score over all simulated comparisons, and the coverage of its interval, both in percent."""

    mean: float
    coverage: float


@dataclass(frozen=True, kw_only=True)
class JudgeScores:
    """One case: the expected score of an unbiased judge in percent, and each score of the report."""

    truth: float
    strict: Score
    mean_of_orders: Score
    one_order: Score
    equal_length: Score | None


def simulate_scores(methods: MethodPair, judge: JudgeModel, repeats: int, rng: np.random.Generator) -> JudgeScores:
    """Simulate `repeats` comparisons. The length-controlled score, which is slow, is computed for a quarter of them,
    and only for a judge with verbosity bias."""
    truth = JudgeModel(noise=judge.noise, tie=judge.tie).true_share(methods.gap, methods.spread)
    both, mean, one, equal = (list[Estimate]() for _ in range(4))
    for i in range(repeats):
        trials = simulate(methods, judge, rng)
        both.append(clustered_share(to_scores(combine_orders(trials.results)), trials.prompts))
        mean.append(clustered_share(to_scores(trials.results).mean(1), trials.prompts))
        one.append(clustered_share(to_scores(trials.results[:, 0]), trials.prompts))
        if judge.verbosity and i % 4 == 0:
            equal.append(compute_tally(trials).length_controlled)
    return JudgeScores(
        truth=100 * truth,
        strict=_score(both, truth),
        mean_of_orders=_score(mean, truth),
        one_order=_score(one, truth),
        equal_length=_score(equal, truth) if equal else None,
    )


def _score(estimates: list[Estimate], truth: float) -> Score:
    covered = [e.low is not None and e.high is not None and e.low <= truth <= e.high for e in estimates]
    values = [e.value for e in estimates if e.value is not None]
    return Score(100 * float(np.mean(values)), 100 * float(np.mean(covered)))
