"""Losses of preference pairs: pure functions of the scores of the better and the worse answer."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from alignbench.core.batches import PerRollout


def linear(lead: Tensor) -> Tensor:
    """-lead: a constant gradient, however large the lead of the better answer."""
    return -lead


def logistic(lead: Tensor, beta: float) -> Tensor:
    """-log sigmoid(beta lead), of leads of log(pi / ref): DPO, Rafailov et al. 2023, eq. 7, https://arxiv.org/abs/2305.18290"""
    return -logsigmoid(beta * lead)


def squared(lead: Tensor, tau: float) -> Tensor:
    """(lead - 1 / (2 tau))^2, of leads of log(pi / ref): IPO, Azar et al. 2023, eq. 17, https://arxiv.org/abs/2310.12036"""
    return (lead - 1 / (2 * tau)).square()


def bradley_terry(chosen: PerRollout, rejected: PerRollout, margin: PerRollout | float = 0.0) -> Tensor:
    """-log sigmoid(r_chosen - r_rejected - margin), [m], in fp32.

        P(a beats b) = sigmoid(r_a - r_b)

    The model is that of Bradley and Terry 1952; as the loss of a reward model Ouyang et al. 2022,
    https://arxiv.org/abs/2203.02155; with a margin Touvron et al. 2023, https://arxiv.org/abs/2307.09288
    """
    return -logsigmoid(chosen.float() - rejected.float() - margin)
