"""Statistics of pairwise verdicts clustered by prompt: win share, sign test, e-value, length control, Bradley-Terry."""

from dataclasses import replace
from math import exp, log, sqrt

import numpy as np
from scipy import special, stats
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .. import statistics
from ..statistics import Estimate

FEW_PROMPTS = 30  # below it the normal-theory interval of a share is unreliable
FEW_LABELS = 10  # below this number of labelled prompts the score is not corrected
EVIDENCE = 20.0  # an e-value of 1 / 0.05


def clustered_share(values: np.ndarray, prompts: np.ndarray, confidence: float = 0.95) -> Estimate:
    """Mean of values in [0, 1] with a confidence interval over prompts. `values`, `prompts`: [n].

    The interval is clustered by prompt. With fewer than 30 prompts, or if all values agree, it is Wilson's with n =
    number of prompts; that interval is conservative, because ties reduce the variance below that of a binomial.
    """
    if len(values) == 0:
        return Estimate(value=None, reason="nothing_judged")
    estimate, count = statistics.clustered(values, prompts, confidence), len(np.unique(prompts))
    if estimate.low is None or estimate.high is None or count < FEW_PROMPTS:
        mean = float(values.mean())
        return replace(statistics.wilson(mean * count, count, confidence), value=mean)
    return replace(estimate, low=max(0.0, estimate.low), high=min(1.0, estimate.high))


def net_signs(signs: np.ndarray, prompts: np.ndarray) -> tuple[int, int]:
    """Number of prompts with more wins than losses, and with more losses than wins. `signs` [n]: 1, 0 or -1."""
    sums = np.bincount(np.unique(prompts, return_inverse=True)[1], weights=signs)
    return int((sums > 0).sum()), int((sums < 0).sum())


def sign_test(wins: int, losses: int) -> float | None:
    """Two-sided exact p-value of the sign test, ties dropped; None without wins and losses."""
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else None


def e_value(wins: int, losses: int) -> float:
    """E-value against P(win) = 1/2, valid under optional stopping: B(1/2+W, 1/2+L) / B(1/2, 1/2) 2^(W+L).

    By Ville's inequality it ever exceeds 20 with probability at most 5% under the null hypothesis. The alternative is
    a mixture over P(win) with the prior Beta(1/2, 1/2) of Krichevsky and Trofimov (1981).
    """
    logarithm = special.betaln(0.5 + wins, 0.5 + losses) - special.betaln(0.5, 0.5) + (wins + losses) * log(2)
    return exp(min(logarithm, 700.0))


def length_controlled_share(values: np.ndarray, gaps: np.ndarray, prompts: np.ndarray) -> Estimate:
    """The share at equal length: sigma(theta) in logit P = theta + phi tanh(gap / sd(gap)), errors clustered by prompt.

    The length term of AlpacaEval 2 (Dubois et al. 2024, https://arxiv.org/abs/2404.04475), without its regularization.
    `values`, `gaps`, `prompts`: [n]; a gap is the length of the first answer minus that of the second.
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
    """Fit a logistic regression to shares in [0, 1]; returns coefficients and their covariance clustered by prompt."""
    from statsmodels.genmod.families import Binomial  # slow to import
    from statsmodels.genmod.generalized_linear_model import GLM

    groups = np.unique(prompts, return_inverse=True)[1]
    fit = GLM(values, design, family=Binomial()).fit(cov_type="cluster", cov_kwds={"groups": groups})
    return np.asarray(fit.params), np.asarray(fit.cov_params())


def fit_bradley_terry(
    values: np.ndarray, first: np.ndarray, second: np.ndarray, prompts: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray] | str:
    """Fit Bradley-Terry strengths of `count` methods: strengths [count] (the first is 0) and covariance [count, count].

    logit P(i beats j) = b_i - b_j (Bradley and Terry 1952), a tie as half a win; errors clustered by prompt. Returns
    the reason as text if the strengths cannot be estimated. `values`, `first`, `second`, `prompts`: [n].
    """
    if len(np.unique(prompts)) < FEW_PROMPTS:
        return "few_prompts"
    if np.ptp(values) == 0:
        return "all_the_same"
    winners = np.concatenate([first[values > 0], second[values < 1]])
    losers = np.concatenate([second[values > 0], first[values < 1]])
    beaten = coo_array((np.ones(len(winners)), (winners, losers)), shape=(count, count))
    if connected_components(beaten, connection="strong")[0] > 1:
        return "separated"  # some methods never lost to the others, or were never compared: no finite maximum
    design = np.zeros((len(values), count))
    rows = np.arange(len(values))
    design[rows, first], design[rows, second] = 1.0, -1.0
    strength, covariance = np.zeros(count), np.zeros((count, count))
    strength[1:], covariance[1:, 1:] = _logit(values, design[:, 1:], prompts)
    return strength, covariance


def win_probability(strength: np.ndarray, covariance: np.ndarray, one: int, other: int) -> Estimate:
    """P(one beats the other) under the Bradley-Terry model, with a 95% Wald interval on the logit scale."""
    gap = float(strength[one] - strength[other])
    variance = covariance[one, one] + covariance[other, other] - 2 * covariance[one, other]
    half = float(stats.norm.ppf(0.975)) * sqrt(max(0.0, float(variance)))
    return Estimate(value=_logistic(gap), low=_logistic(gap - half), high=_logistic(gap + half))


def _logistic(x: float) -> float:
    return 1 / (1 + exp(-x)) if x > -700 else 0.0


def prediction_powered_share(
    judge: np.ndarray, human: np.ndarray, unlabelled: np.ndarray, confidence: float = 0.95
) -> Estimate:
    """Estimate the share that human raters would give from few human labels and many verdicts of the judge.

    Prediction-powered inference (PPI++, Angelopoulos et al. 2023, https://arxiv.org/abs/2311.01453): mean(y) +
    l (mean(f unlabelled) - mean(f labelled)), l = cov(y, f) / ((1 + n/N) var(f)) clipped to [0, 1], with one value per
    prompt. `judge` and `human` [n]: labelled prompts; `unlabelled` [N]: verdicts of the judge on the other prompts.
    """
    n, rest = len(human), len(unlabelled)
    if n < FEW_LABELS:
        return Estimate(value=None, reason="few_labels")
    weight = 0.0
    if rest > 1 and np.ptp(judge) > 0:
        covariance = np.cov(human, judge, ddof=1)
        spread = np.var(np.concatenate([judge, unlabelled]), ddof=1)
        weight = float(np.clip(covariance[0, 1] / ((1 + n / rest) * spread), 0, 1))
    variance = np.var(human - weight * judge, ddof=1) / n
    mean = float(human.mean())
    if weight:
        variance += weight**2 * np.var(unlabelled, ddof=1) / rest
        mean += weight * float(unlabelled.mean() - judge.mean())
    if variance == 0:
        return Estimate(value=mean, reason="all_the_same")
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * sqrt(variance))
    return Estimate(value=mean, low=max(0.0, mean - half), high=min(1.0, mean + half))


def agreement_and_kappa(one: np.ndarray, other: np.ndarray) -> tuple[float | None, float | None]:
    """Share of equal labels and Cohen's kappa (1960) of two raters [n]; kappa is None if chance agreement is 1."""
    if len(one) == 0:
        return None, None
    agreed = float((one == other).mean())
    labels = np.unique(np.concatenate([one, other]))
    chance = float(sum((one == label).mean() * (other == label).mean() for label in labels))
    return agreed, None if chance > 1 - 1e-12 else (agreed - chance) / (1 - chance)
