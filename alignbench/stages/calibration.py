"""How often the better answer gets the higher score, and whether the scores are as sure as they are right.

All are functions of the leads of some pairs, score of the chosen answer minus score of the rejected one, [m].
"""

from collections.abc import Sequence
from math import exp, log

import torch
from torch import Tensor
from torch.nn.functional import softplus

BINS = 10
COLDEST, HOTTEST = 0.01, 100.0
"""Temperatures are looked for between these; a model that makes no mistake has no best one and gets the coldest."""
Bin = tuple[float | None, float | None, float, int]
"""From, up to but not including, accuracy and number of pairs; None is open."""


def accuracy(leads: Tensor) -> float:
    """The share of pairs whose chosen answer is ahead; a tie counts half."""
    return float(right(leads).mean())


def mean_loss(leads: Tensor, temperature: float = 1.0) -> float:
    """-log sigmoid(lead / temperature), mean over pairs."""
    return float(softplus(-leads.double() / temperature).mean())


def calibration_error(leads: Tensor, temperature: float = 1.0) -> float:
    """The expected calibration error of sigmoid(lead / temperature), from 0 to 1.

        sum over bins of (share of the pairs in the bin) x |accuracy - mean confidence|

    The confidence in the answer that is ahead, sigmoid(|lead| / temperature), is from 1/2 to 1; ten bins of equal width
    share that range. Guo et al. 2017, https://arxiv.org/abs/1706.04599
    """
    sure = (leads.double().abs() / temperature).sigmoid()
    bins = ((sure - 0.5) * 2 * BINS).long().clamp(max=BINS - 1)
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add(0, bins, right(leads) - sure)
    return float(gaps.abs().sum() / len(leads))


def best_temperature(leads: Tensor) -> float:
    """The temperature that makes the pairs most likely: the least `mean_loss`. The same source as the error's."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda logarithm: mean_loss(leads, exp(logarithm)), bounds=(log(COLDEST), log(HOTTEST)), method="bounded"
    )
    return exp(float(found.x))


def by(values: Tensor, leads: Tensor, edges: Sequence[float | None]) -> list[Bin]:
    """The accuracy on the pairs whose value lies between two edges that follow each other; empty bins are left out."""
    found: list[Bin] = []
    for low, high in zip(edges, edges[1:], strict=False):
        inside = torch.ones_like(values, dtype=torch.bool)
        inside &= values >= low if low is not None else inside
        inside &= values < high if high is not None else inside
        if inside.any():
            found.append((low, high, accuracy(leads[inside]), int(inside.sum())))
    return found


def right(leads: Tensor) -> Tensor:
    """1 where the chosen answer is ahead, 0.5 for a tie, 0 elsewhere, [m]."""
    return (leads > 0).double() + 0.5 * (leads == 0).double()
