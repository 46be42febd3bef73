"""What a list of wins, ties and losses says, when several rows share a prompt: pure functions of numpy arrays."""

from dataclasses import replace
from math import exp, log, sqrt

import numpy as np
from scipy import special, stats
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .. import statistics
from ..statistics import Estimate

FEW_PROMPTS = 30  # below it the normal-theory interval of a share is not to be trusted
FEW_LABELS = 10  # prompts labelled by people below which nothing is corrected by them
EVIDENCE = 20.0  # an e-value of 1 / 0.05


def share(values: np.ndarray, prompts: np.ndarray, confidence: float = 0.95) -> Estimate:
    """Mean of values in [0, 1] with its interval over prompts.

    Clustered by prompt; Wilson's on the number of prompts where there are fewer than 30 or where all agree. Wilson then
    holds too often rather than too seldom, for ties make the spread smaller than that of wins and losses alone.
    """
    if len(values) == 0:
        return Estimate(value=None, reason="nothing_judged")
    estimate, count = statistics.clustered(values, prompts, confidence), len(np.unique(prompts))
    if estimate.low is None or estimate.high is None or count < FEW_PROMPTS:
        mean = float(values.mean())
        return replace(statistics.wilson(mean * count, count, confidence), value=mean)
    return replace(estimate, low=max(0.0, estimate.low), high=min(1.0, estimate.high))


def net_signs(signs: np.ndarray, prompts: np.ndarray) -> tuple[int, int]:
    """Prompts on which one side won more often than it lost, and the other way round."""
    sums = np.bincount(np.unique(prompts, return_inverse=True)[1], weights=signs)
    return int((sums > 0).sum()), int((sums < 0).sum())


def sign_test(wins: int, losses: int) -> float | None:
    """Two-sided exact p of wins against losses, ties dropped; None where nobody won."""
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else None


def e_value(wins: int, losses: int) -> float:
    """Evidence against equal chances that may be looked at after every prompt: B(1/2+W, 1/2+L) / B(1/2, 1/2) 2^(W+L).

    By Ville's inequality it ever exceeds 20 with a chance of at most 5% when the chances are equal. A mixture over the
    chance of a win with the prior Beta(1/2, 1/2) of Krichevsky and Trofimov (1981).
    """
    logarithm = special.betaln(0.5 + wins, 0.5 + losses) - special.betaln(0.5, 0.5) + (wins + losses) * log(2)
    return exp(min(logarithm, 700.0))


def length_controlled(values: np.ndarray, gaps: np.ndarray, prompts: np.ndarray) -> Estimate:
    """The share at equal length: sigma(theta) in logit P = theta + phi tanh(gap / sd(gap)), errors clustered by prompt.

    The length term of AlpacaEval 2 (Dubois et al. 2024, https://arxiv.org/abs/2404.04475), without its regularization.
    `gaps` are lengths of the first answer minus the second.
    """
    if len(np.unique(prompts)) < FEW_PROMPTS:
        return Estimate(value=None, reason="few_prompts")
    if np.ptp(values) == 0:
        return Estimate(value=None, reason="all_the_same")
    if np.ptp(gaps) == 0:
        return Estimate(value=None, reason="no_length_difference")
    scaled = np.tanh(gaps / gaps.std())
    won, lost = scaled[values > 0], scaled[values < 1]
    if not (won.min() < lost.max() and lost.min() < won.max()):
        return Estimate(value=None, reason="separated")
    design = np.column_stack([np.ones(len(gaps)), scaled])
    parameters, covariance = _logit(values, design, prompts)
    theta, error = float(parameters[0]), sqrt(covariance[0, 0])
    half = float(stats.t.ppf(0.975, len(np.unique(prompts)) - 1)) * error
    return Estimate(value=_logistic(theta), low=_logistic(theta - half), high=_logistic(theta + half))


def _logit(values: np.ndarray, design: np.ndarray, prompts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of a logistic regression of shares in [0, 1], and their covariance clustered by prompt."""
    from statsmodels.genmod.families import Binomial  # here, because it takes a second
    from statsmodels.genmod.generalized_linear_model import GLM

    groups = np.unique(prompts, return_inverse=True)[1]
    fit = GLM(values, design, family=Binomial()).fit(cov_type="cluster", cov_kwds={"groups": groups})
    return np.asarray(fit.params), np.asarray(fit.cov_params())


def strengths(
    values: np.ndarray, first: np.ndarray, second: np.ndarray, prompts: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray] | str:
    """Bradley-Terry strengths of `count` methods (the first is 0) and their covariance, or why there are none.

    logit P(i beats j) = b_i - b_j (Bradley and Terry 1952), a tie as half a win; errors clustered by prompt.
    """
    if len(np.unique(prompts)) < FEW_PROMPTS:
        return "few_prompts"
    if np.ptp(values) == 0:
        return "all_the_same"
    winners = np.concatenate([first[values > 0], second[values < 1]])
    losers = np.concatenate([second[values > 0], first[values < 1]])
    beaten = coo_array((np.ones(len(winners)), (winners, losers)), shape=(count, count))
    if connected_components(beaten, connection="strong")[0] > 1:
        return "separated"  # some methods never lost to the others, or never met them: their strength has no limit
    design = np.zeros((len(values), count))
    rows = np.arange(len(values))
    design[rows, first], design[rows, second] = 1.0, -1.0
    strength, covariance = np.zeros(count), np.zeros((count, count))
    strength[1:], covariance[1:, 1:] = _logit(values, design[:, 1:], prompts)
    return strength, covariance


def beats(strength: np.ndarray, covariance: np.ndarray, one: int, other: int) -> Estimate:
    """P(one beats the other) under Bradley-Terry, with its interval."""
    gap = float(strength[one] - strength[other])
    variance = covariance[one, one] + covariance[other, other] - 2 * covariance[one, other]
    half = float(stats.norm.ppf(0.975)) * sqrt(max(0.0, float(variance)))
    return Estimate(value=_logistic(gap), low=_logistic(gap - half), high=_logistic(gap + half))


def _logistic(x: float) -> float:
    return 1 / (1 + exp(-x)) if x > -700 else 0.0


def prediction_powered_share(
    judged: np.ndarray, people: np.ndarray, others: np.ndarray, confidence: float = 0.95
) -> Estimate:
    """The share that people would give, from a few of their labels and many of the judge's (one number per prompt).

    Prediction-powered inference: mean(y) + l (mean(f others) - mean(f labelled)), l = cov(y, f) / ((1 + n/N) var(f))
    within [0, 1] (Angelopoulos et al. 2023, https://arxiv.org/abs/2311.01453; 0 where the judge is of no use).
    `judged` and `people` are of the labelled prompts, `others` the judge's of the rest.
    """
    n, rest = len(people), len(others)
    if n < FEW_LABELS:
        return Estimate(value=None, reason="few_labels")
    weight = 0.0
    if rest > 1 and np.ptp(judged) > 0:
        covariance = np.cov(people, judged, ddof=1)
        spread = np.var(np.concatenate([judged, others]), ddof=1)
        weight = float(np.clip(covariance[0, 1] / ((1 + n / rest) * spread), 0, 1))
    variance = np.var(people - weight * judged, ddof=1) / n
    mean = float(people.mean())
    if weight:
        variance += weight**2 * np.var(others, ddof=1) / rest
        mean += weight * float(others.mean() - judged.mean())
    if variance == 0:
        return Estimate(value=mean, reason="all_the_same")
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * sqrt(variance))
    return Estimate(value=mean, low=max(0.0, mean - half), high=min(1.0, mean + half))


def kappa(one: np.ndarray, other: np.ndarray) -> tuple[float | None, float | None]:
    """How often two judges agree, and Cohen's (1960) kappa: that beyond chance; None where chance alone would agree."""
    if len(one) == 0:
        return None, None
    agreed = float((one == other).mean())
    labels = np.unique(np.concatenate([one, other]))
    chance = float(sum((one == label).mean() * (other == label).mean() for label in labels))
    return agreed, None if chance > 1 - 1e-12 else (agreed - chance) / (1 - chance)
