"""How well scores tell right answers from wrong ones: the area under the ROC curve, with its interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata


@dataclass(frozen=True, kw_only=True)
class Separation:
    """The chance that a right answer scores above a wrong one, ties counting half."""

    auc: float
    low: float
    """Of the 95 % interval."""
    high: float
    """Of the 95 % interval."""


def separation(scores: Sequence[float], right: Sequence[bool], prompts: Sequence[str]) -> Separation | None:
    """The AUC of scores against correctness, and its interval; None where all are right or all are wrong.

    The variance is that of DeLong, DeLong and Clarke-Pearson 1988 (https://doi.org/10.2307/2531595), summed by prompt
    because answers to one prompt are alike (Obuchowski 1997, https://doi.org/10.2307/2533958). The interval is Wilson's
    for as many independent answers as have that variance, so that it stays within 0 and 1.
    """
    score, hit = np.asarray(scores, dtype=np.float64), np.asarray(right, dtype=bool)
    m, n = int(hit.sum()), int((~hit).sum())
    if not m or not n:
        return None
    above = _placements(score, hit)  # of a right answer: the share of wrong ones below it; of a wrong one likewise
    auc = float(above[hit].mean())
    pull = np.where(hit, (above - auc) / m, (above - auc) / n)
    alone = len(set(prompts)) == 1  # answers to one prompt speak of that prompt
    names, of = np.unique(np.arange(m + n) if alone else np.asarray(prompts), return_inverse=True)
    variance = float(np.square(np.bincount(of, weights=pull)).sum()) * len(names) / max(len(names) - 1, 1)
    low, high = _wilson(auc, auc * (1 - auc) / variance if variance > 0 else min(m, n))
    return Separation(auc=auc, low=low, high=high)


def _placements(score: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """For each answer, the share of the other kind that it stands on the right side of."""
    among_all, placed = rankdata(score), np.empty(len(score))
    for kind, others in ((hit, ~hit), (~hit, hit)):
        below = (among_all[kind] - rankdata(score[kind])) / others.sum()
        placed[kind] = below if kind is hit else 1 - below
    return placed


def _wilson(share: float, n: float) -> tuple[float, float]:
    z = float(norm.ppf(0.975))
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return max(middle - reach, 0.0), min(middle + reach, 1.0)
