"""Accuracy and calibration of a reward model: expected calibration error and temperature scaling.

All are functions of leads [m]: the score of the chosen answer minus the score of the rejected one, for each pair.
"""

from collections.abc import Sequence
from math import exp, log

import torch
from torch import Tensor
from torch.nn.functional import softplus

BINS = 10
COLDEST, HOTTEST = 0.01, 100.0
"""Bounds of the temperature; a model without errors has no optimum and gets the lower bound."""
Bin = tuple[float | None, float | None, float, int]
"""Lower edge (included), upper edge (excluded), accuracy and number of pairs; an edge of None is open."""


def accuracy(leads: Tensor) -> float:
    """Share of pairs whose chosen answer has the higher score; a tie counts half."""
    return float(correct(leads).mean())


def mean_loss(leads: Tensor, temperature: float = 1.0) -> float:
    """-log sigmoid(lead / temperature), mean over pairs."""
    return float(softplus(-leads.double() / temperature).mean())


def calibration_error(leads: Tensor, temperature: float = 1.0) -> float:
    """The expected calibration error of sigmoid(lead / temperature), from 0 to 1.

        sum over bins of (share of the pairs in the bin) x |accuracy - mean confidence|

    The confidence in the answer with the higher score, sigmoid(|lead| / temperature), is from 1/2 to 1; that range is
    divided into ten bins of equal width. Guo et al. 2017, https://arxiv.org/abs/1706.04599
    """
    confidence = (leads.double().abs() / temperature).sigmoid()
    bins = ((confidence - 0.5) * 2 * BINS).long().clamp(max=BINS - 1)
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add(0, bins, correct(leads) - confidence)
    return float(gaps.abs().sum() / len(leads))


def best_temperature(leads: Tensor) -> float:
    """The maximum-likelihood temperature, which minimizes `mean_loss`: temperature scaling, Guo et al. 2017."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda logarithm: mean_loss(leads, exp(logarithm)), bounds=(log(COLDEST), log(HOTTEST)), method="bounded"
    )
    return exp(float(found.x))


def accuracy_by_bin(values: Tensor, leads: Tensor, edges: Sequence[float | None]) -> list[Bin]:
    """The accuracy in each bin of `values` [m] between consecutive edges; empty bins are omitted."""
    found: list[Bin] = []
    for low, high in zip(edges, edges[1:], strict=False):
        inside = torch.ones_like(values, dtype=torch.bool)
        inside &= values >= low if low is not None else inside
        inside &= values < high if high is not None else inside
        if inside.any():
            found.append((low, high, accuracy(leads[inside]), int(inside.sum())))
    return found


def correct(leads: Tensor) -> Tensor:
    """1 where the chosen answer has the higher score, 0.5 for a tie, else 0, [m]."""
    return (leads > 0).double() + 0.5 * (leads == 0).double()
