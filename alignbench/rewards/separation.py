"""Area under the ROC curve (AUC) of scores against correctness, with a confidence interval clustered by prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata


@dataclass(frozen=True, kw_only=True)
class Separation:
    """Probability that a correct answer scores above an incorrect one; ties count half."""

    auc: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""


def compute_separation(scores: Sequence[float], correct: Sequence[bool], prompts: Sequence[str]) -> Separation | None:
    """The AUC and its interval; None where all answers are correct or all incorrect. All arguments have length n.

    The variance is that of DeLong, DeLong and Clarke-Pearson 1988 (https://doi.org/10.2307/2531595), summed by prompt
    because answers to one prompt are correlated (Obuchowski 1997, https://doi.org/10.2307/2533958). The interval is
    Wilson's for the number of independent answers that has that variance, so that it stays within 0 and 1.
    """
    score, hit = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=bool)
    m, n = int(hit.sum()), int((~hit).sum())
    if not m or not n:
        return None
    above = _placements(score, hit)  # see _placements
    auc = float(above[hit].mean())
    influence = np.where(hit, (above - auc) / m, (above - auc) / n)
    one_prompt = len(set(prompts)) == 1  # then the answers are the clusters
    names, cluster = np.unique(np.arange(m + n) if one_prompt else np.asarray(prompts), return_inverse=True)
    variance = float(np.square(np.bincount(cluster, weights=influence)).sum()) * len(names) / max(len(names) - 1, 1)
    low, high = _wilson(auc, auc * (1 - auc) / variance if variance > 0 else min(m, n))
    return Separation(auc=auc, low=low, high=high)


def _placements(score: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """The share of incorrect answers below each correct one, and of correct answers above each incorrect one."""
    ranks, placed = rankdata(score), np.empty(len(score))
    for kind, others in ((hit, ~hit), (~hit, hit)):
        below = (ranks[kind] - rankdata(score[kind])) / others.sum()
        placed[kind] = below if kind is hit else 1 - below
    return placed


def _wilson(share: float, n: float) -> tuple[float, float]:
    z = float(norm.ppf(0.975))
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half_width = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return max(center - half_width, 0.0), min(center + half_width, 1.0)
