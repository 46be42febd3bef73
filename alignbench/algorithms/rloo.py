"""REINFORCE leave-one-out: the baseline of a rollout is the mean score of its siblings.

    A_i = score_i - 1/(G-1) sum_{j != i} score_j,   score_i less beta log(pi / pi_ref) of the whole response
    L   = E[-rho A] summed over the tokens of a response

Ahmadian et al. 2024, arXiv 2402.14740. Deviation from the paper: rho is clipped as in PPO, which matters
only with more than one minibatch or epoch; at ratio 1 the gradient is the paper's.
"""

from dataclasses import dataclass, field

from alignbench.algorithms.critic_free import Clipped
from alignbench.algorithms.kl import FixedKL, Penalty
from alignbench.core.batches import PerRollout, Scored
from alignbench.equations.advantages import leave_one_out
from alignbench.equations.reductions import Reduction


@dataclass(frozen=True, kw_only=True)
class RLOO(Clipped):
    """An unbiased baseline without scaling, the KL penalty in the score, and a loss summed over each response."""

    reduction: Reduction = "sequence_sum"
    """How the losses of tokens are averaged."""
    kl: Penalty = field(default_factory=lambda: FixedKL(placement="reward", estimator="k1"))
    """The KL penalty."""

    def baseline(self, scores: PerRollout, batch: Scored) -> PerRollout:
        return leave_one_out(scores, batch.group)
