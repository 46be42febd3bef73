"""Signs and edge cases that random mutations showed to be untested (see docs/mutation.md)."""

import pytest
from small_batches import descend, experience, forward, random_batch, scored
from torch import tensor
from torch.testing import assert_close

from alignbench.algorithms.bnpo import BNPO, fitted
from alignbench.algorithms.kl import FixedKL
from alignbench.algorithms.pairwise import Pairwise
from alignbench.algorithms.ppo_pairwise import PPOPairwise
from alignbench.core.errors import UserError
from alignbench.equations.objectives import clipped, clipped_surrogate


@pytest.mark.parametrize("algorithm", [Pairwise, PPOPairwise])
def test_a_kl_penalty_beside_pairs_adds_to_the_loss_and_pulls_towards_the_reference(algorithm):
    batch = random_batch()
    with_kl, without = (algorithm(kl=FixedKL(coef=1.0)), algorithm(kl=FixedKL(placement="none", coef=0.0)))
    now = forward(batch)
    (loss, pulled), (bare, free) = (descend(a, now, experience(a, batch, kl_coef=1.0)) for a in (with_kl, without))
    assert loss > bare, "k3 is never negative"
    pull = (pulled["logprobs"] - free["logprobs"])[experience(with_kl, batch).weights > 0]
    above = (batch.old_logprobs > batch.ref_logprobs)[experience(with_kl, batch).weights > 0]
    assert (pull[above] > 0).all(), "likelier than by the reference: descending makes it less likely"
    assert (pull[~above] < 0).all()


def test_the_dual_clip_does_not_affect_small_positive_advantages():
    ratio, advantages = tensor([[0.1, 5.0]]), tensor([[0.5, 0.5]])
    assert_close(clipped_surrogate(ratio, advantages, 0.2, 0.2, 3.0), clipped_surrogate(ratio, advantages, 0.2, 0.2))


def test_the_clip_fraction_depends_on_the_sign_of_the_advantage_only():
    ratio = tensor([[5.0, 5.0, 0.1, 0.1]])
    for size in (0.5, 2.0):
        advantages = size * tensor([[1.0, -1.0, 1.0, -1.0]])
        assert clipped(ratio, advantages, 0.2, 0.2).tolist() == [[True, False, False, True]]


def test_a_score_above_the_range_is_an_error_and_one_at_its_edge_is_not():
    flat = -tensor([[1.0], [1.0]])
    batch = scored(old_logprobs=flat, ref_logprobs=flat, scores=tensor([0.0, 2.0]), group=tensor([0, 0]))
    with pytest.raises(UserError, match="another 2, outside"):
        BNPO().credit(batch)
    BNPO(high=2.0).credit(batch)


def test_groups_that_are_equally_hard_fit_the_density_that_is_flat():
    flat = -tensor([[1.0]] * 8)
    group = tensor([0] * 4 + [1] * 4)
    batch = scored(old_logprobs=flat, ref_logprobs=flat, scores=tensor([0.0, 0.0, 0.0, 1.0] * 2), group=group)
    assert fitted(batch.scores, batch) == (1.0, 1.0)
