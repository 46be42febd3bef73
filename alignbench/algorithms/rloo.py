"""REINFORCE leave-one-out: each rollout is judged against the mean of its siblings.

    A_i = score_i - 1/(G-1) sum_{j != i} score_j,   score_i less beta log(pi / pi_ref) of the whole response
    L   = E[-rho A] summed over the tokens of a response

Ahmadian et al. 2024, arXiv 2402.14740. Deviation from the paper: rho is clipped as in PPO, which matters
only with more than one minibatch or epoch; at ratio 1 the gradient is the paper's.
"""

from dataclasses import dataclass, field

from alignbench.algorithms.grpo import GRPO
from alignbench.algorithms.kl import FixedKL, Penalty
from alignbench.core.batches import PerRollout, Scored
from alignbench.core.errors import UserError
from alignbench.core.knobs import NonNegative
from alignbench.equations.advantages import leave_one_out
from alignbench.equations.reductions import Reduction


@dataclass(frozen=True, kw_only=True)
class RLOO(GRPO):
    """GRPO's group with an unbiased baseline, the KL in the score, and whole responses in the loss."""

    scale_by_std: bool = False
    """Must stay off: the leave-one-out baseline is not divided by anything."""
    eps: NonNegative = 0.0
    """Must stay 0, for the same reason."""
    reduction: Reduction = "sequence_sum"
    """How much each token counts in the loss."""
    kl: Penalty = field(default_factory=lambda: FixedKL(placement="reward", estimator="k1"))
    """The KL penalty."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale_by_std or self.eps:
            raise UserError("scale_by_std and eps are GRPO's; RLOO divides by no standard deviation: use algo=grpo")

    def baseline(self, scores: PerRollout, batch: Scored) -> PerRollout:
        """Each rollout's advantage over the mean of the others, [n]."""
        return leave_one_out(scores, batch.group)
