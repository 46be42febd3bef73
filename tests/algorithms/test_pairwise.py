"""Preference pairs: their selection, their loss, and special cases that equal other algorithms."""

from dataclasses import replace

import pytest
import torch
from small_batches import GROUP, PER_TOKEN, descend, experience, forward, random_batch, scored
from torch import tensor
from torch.testing import assert_close

from alignbench.algorithms.grpo import GRPO
from alignbench.algorithms.kl import FixedKL
from alignbench.algorithms.pairing import Pairing
from alignbench.algorithms.pairwise import Pairwise
from alignbench.algorithms.ppo import PPO
from alignbench.algorithms.ppo_pairwise import PPOPairwise
from alignbench.core.seeds import derive
from alignbench.equations.pairs import linear, logistic, squared

SCORES = [0.0, 1.0, 1.0, 0.0, 0.5]
LINEAR = {"link": "linear", "beta": None}
LINKS = {"linear": Pairing(**LINEAR), "logistic": Pairing(), "squared": Pairing(link="squared")}
every_link = pytest.mark.parametrize("pairs", LINKS.values(), ids=LINKS.keys())

COUPLES = {
    "neighbours": (Pairing(selector="consecutive"), SCORES, [(1, 0), (2, 3)]),
    "neighbours of equal score": (Pairing(selector="consecutive"), [1.0, 1.0, 0.0, 2.0], [(3, 2)]),
    "the first winner against all": (Pairing(selector="winner_vs_all"), SCORES, [(1, 0), (1, 2), (1, 3), (1, 4)]),
    "the first winner against all below": (Pairing(), SCORES, [(1, 0), (1, 3), (1, 4)]),
    "below what a winner needs": (Pairing(win_score=0.5), SCORES, [(1, 0), (1, 3)]),
    "no winner": (Pairing(win_score=2.0), SCORES, []),
    "no winner against all": (Pairing(selector="winner_vs_all", win_score=2.0), SCORES, []),
    "all equal": (Pairing(selector="winner_vs_all"), [1.0, 1.0, 1.0], []),
    "all equal, nobody incorrect": (Pairing(), [1.0, 1.0, 1.0], []),
    "all right, one of them named the winner": (
        Pairing(selector="winner_vs_all", win_score=1.0),
        [1.0] * 3,
        [(0, 1), (0, 2)],
    ),
}


@pytest.mark.parametrize(("pairs", "scores", "expected"), COUPLES.values(), ids=COUPLES.keys())
def test_selection_of_pairs(pairs, scores, expected):
    assert pairs.couples(scores, derive(0, "any")) == expected


def test_duplicate_answers_make_no_pair_with_distinct():
    flat = -torch.ones(5, 1)
    batch = scored(
        old_logprobs=flat,
        ref_logprobs=flat,
        scores=tensor([0.0, 1.0, 0.0, 1.0, 0.5]),
        group=torch.zeros(5, dtype=torch.long),
    )
    batch = replace(batch, texts=("a", "b", "a", "b", "c"))  # left: numbers 0, 1 and 4
    found = {}
    for distinct in (False, True):
        pairs = Pairing(selector="winner_vs_all", win_score=1.0, distinct=distinct)
        found[distinct] = Pairwise(pairs=pairs).credit(batch).preferred.nonzero().tolist()
    assert found == {False: [[1, 0], [1, 2], [1, 3], [1, 4]], True: [[1, 0], [1, 4]]}
    neighbours = Pairwise(pairs=Pairing(selector="consecutive", distinct=True, **LINEAR)).credit(batch)
    assert neighbours.preferred.nonzero().tolist() == [[1, 0]]


def test_a_shuffle_is_seeded_and_uses_each_rollout_at_most_once():
    pairs, scores = Pairing(selector="random"), [float(i) for i in range(8)]
    drawn = [pairs.couples(scores, derive(seed, "pairs", 0)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert sorted(i for couple in drawn[0] for i in couple) == list(range(8))
    assert all(better > worse for better, worse in drawn[0])


def test_each_step_shuffles_with_its_own_seed():
    algorithm = Pairwise(pairs=Pairing(selector="random"))
    one, same, other = (algorithm.credit(random_batch(seed=s)).preferred for s in (0, 0, 0))
    assert torch.equal(one, same)
    found = {tuple(algorithm.credit(replace(random_batch(), seed=s)).preferred.flatten().tolist()) for s in range(9)}
    assert len(found) > 1
    assert other.sum() == 4, "two groups of four make two pairs each"


def test_confidence_grows_with_the_lead_up_to_one():
    algorithm = Pairwise(pairs=Pairing(selector="consecutive", sure_lead=2.0))
    flat = -torch.ones(6, 1)
    batch = scored(
        old_logprobs=flat,
        ref_logprobs=flat,
        scores=tensor([0.0, 1.0, 5.0, 1.0, 2.0, 2.0]),
        group=torch.zeros(6, dtype=torch.long),
    )
    credit = algorithm.credit(batch)
    assert credit.number.tolist() == [0, 1, 2, 3, 4, 5]
    assert credit.preferred[1, 0] == 0.5
    assert credit.preferred[2, 3] == 1.0
    assert credit.preferred.sum() == 1.5


def test_link_functions():
    """sigmoid(0.5 * 2 log 3) is 3/4; the squared link wants a lead of 1 / (2 * 0.25) = 2."""
    lead = tensor([2 * 3.0]).log() * 2 - tensor([2.0]).log() * 2
    assert_close(linear(lead), -lead)
    assert_close(logistic(lead, 0.5), tensor([4 / 3]).log())
    assert_close(squared(tensor([2.0, 0.0, 5.0]), 0.25), tensor([0.0, 4.0, 9.0]))
    assert logistic(tensor([-1e4]), 1.0).item() == pytest.approx(1e4)


def of_two(**changes):
    """One pair: two tokens against three, the first the better one."""
    return scored(
        old_logprobs=-torch.ones(2, 3),
        ref_logprobs=-2 * torch.ones(2, 3),
        scores=tensor([1.0, 0.0]),
        group=tensor([0, 0]),
        mask=tensor([[True, True, False], [True, True, True]]),
        **changes,
    )


@pytest.mark.parametrize(
    ("pairs", "loss"),
    [
        (Pairing(**LINEAR), -(-2.0 + 3.0)),
        (Pairing(**LINEAR, length_normalised=True), 0.0),
        (Pairing(beta=0.1), torch.nn.functional.softplus(tensor(0.1)).item()),  # log(pi / ref) is 2 and 3
        (Pairing(beta=0.1, length_normalised=True), 0.6931472),
        (Pairing(link="squared", beta=0.25), (-1.0 - 2.0) ** 2),
    ],
)
def test_the_loss_of_a_pair_by_hand(pairs, loss):
    algorithm = Pairwise(group_size=2, pairs=pairs)
    batch = experience(algorithm, of_two())
    assert batch.pair_share == 1
    assert_close(descend(algorithm, forward(batch), batch)[0], tensor(loss))


def test_the_loss_is_the_mean_over_pairs():
    algorithm = Pairwise(pairs=Pairing(selector="winner_vs_all", **LINEAR))
    whole = experience(algorithm, random_batch())
    assert whole.pair_share == pytest.approx(1 / 6)
    better, worse = (whole.preferred > 0).nonzero().T
    totals = (whole.old_logprobs * whole.mask).sum(1)
    of = {(int(g), int(k)): totals[i] for i, (g, k) in enumerate(zip(whole.group, whole.number, strict=True))}
    leads = [totals[b] - of[int(whole.group[b]), int(w)] for b, w in zip(better, worse, strict=True)]
    assert_close(descend(algorithm, forward(whole), whole)[0], -torch.stack(leads).mean())


class TestWhatItBecomes:
    def test_linear_pairs_are_reinforce_with_wins_minus_losses_as_advantage(self):
        algorithm = Pairwise(pairs=Pairing(selector="winner_vs_all", **LINEAR))
        batch = experience(algorithm, random_batch())
        _, gradients = descend(algorithm, forward(batch, moved=0.3), batch)
        assert_close(gradients["logprobs"], -batch.advantages * batch.pair_share)
        assert sorted(batch.advantages[:, 0].tolist()) == [-1.0] * 6 + [3.0] * 2

    def test_with_two_rollouts_linear_pairs_have_the_gradient_of_grpo(self):
        """A pair pulls with 1 and -1, the z-score of two is sqrt(1/2) and -sqrt(1/2), over twice as many rows."""
        batch = random_batch(group=tensor([0, 0, 1, 1, 2, 2, 3, 3]))
        pairs = Pairwise(group_size=2, pairs=Pairing(selector="consecutive", **LINEAR))
        grpo = GRPO(group_size=2, reduction="sequence_sum", eps=0.0, kl=FixedKL(placement="none", coef=0.0))
        (_, one), (_, other) = (descend(a, forward(batch), experience(a, batch)) for a in (pairs, grpo))
        assert_close(one["logprobs"], 2 * 2**0.5 * other["logprobs"])

    @pytest.mark.parametrize(("link", "beta", "factor"), [("logistic", 0.3, 0.15), ("squared", 0.25, 4.0)])
    def test_at_the_reference_every_link_has_the_gradient_of_the_linear_one(self, link, beta, factor):
        """The slope of -log sigmoid(beta x) at 0 is -beta / 2, that of (x - 1 / (2 tau))^2 is -1 / tau."""
        batch = random_batch()
        batch = replace(batch, ref_logprobs=batch.old_logprobs)
        (_, linked), (_, plain) = (
            descend(a, forward(batch), experience(a, batch))
            for a in (Pairwise(pairs=Pairing(link=link, beta=beta)), Pairwise(pairs=Pairing(**LINEAR)))
        )
        assert_close(linked["logprobs"], factor * plain["logprobs"])

    def test_without_weight_the_hybrid_is_ppo(self):
        batch = random_batch()
        results = [
            descend(a, forward(batch, moved=0.3), experience(a, batch)) for a in (PPOPairwise(pairs_weight=0.0), PPO())
        ]
        assert_close(results[0], results[1])

    def test_the_hybrid_is_the_sum_of_both(self):
        batch, pairs = random_batch(), Pairing()
        hybrid, ppo, alone = (
            descend(a, forward(batch, moved=0.3), experience(a, batch))
            for a in (PPOPairwise(pairs_weight=0.5, pairs=pairs), PPO(), Pairwise(pairs=pairs))
        )
        assert_close(hybrid[0], ppo[0] + 0.5 * alone[0])
        assert_close(hybrid[1]["logprobs"], ppo[1]["logprobs"] + 0.5 * alone[1]["logprobs"])


class TestBatches:
    @every_link
    @pytest.mark.parametrize("algorithm", [Pairwise, PPOPairwise])
    def test_losses_of_groups_in_separate_microbatches_add_up(self, pairs, algorithm):
        made = algorithm(pairs=pairs)
        batch = experience(made, random_batch())
        now = forward(batch, moved=0.3)
        whole, gradients = descend(made, now, batch)
        for rows in ((tensor(GROUP) == i).nonzero()[:, 0] for i in (0, 1)):
            part = replace(now, logprobs=now.logprobs[rows], entropy=now.entropy[rows], values=now.values[rows])
            loss, some = descend(made, part, batch[rows])
            whole = whole - loss
            for name, gradient in some.items():
                gradients[name][rows] -= gradient
        assert_close(whole, tensor(0.0), atol=1e-5, rtol=0)
        assert all(g.abs().max() < 1e-6 for g in gradients.values())

    @every_link
    def test_the_order_of_rows_does_not_matter_after_pairing(self, pairs):
        algorithm, order = Pairwise(pairs=pairs), torch.randperm(8, generator=torch.Generator().manual_seed(5))
        made = algorithm.credit(random_batch())
        results = []
        for rows in (torch.arange(8), order):
            batch = algorithm.with_weights(made[rows])
            now = forward(made, moved=0.3)
            now = replace(now, logprobs=now.logprobs[rows], entropy=now.entropy[rows], values=now.values[rows])
            loss, gradients = descend(algorithm, now, batch)
            results.append((loss, gradients["logprobs"][rows.argsort()]))
        assert_close(results[0], results[1])

    @every_link
    def test_values_outside_the_mask_have_no_effect(self, pairs):
        algorithm, clean = Pairwise(pairs=pairs, kl=FixedKL(coef=0.1)), random_batch()
        spoiled = replace(clean, **{name: getattr(clean, name).where(clean.mask, 1e6) for name in PER_TOKEN})
        now = forward(clean, moved=0.3)
        garbage = replace(now, logprobs=now.logprobs.detach().where(clean.mask, -1e6).requires_grad_())
        (loss, gradients), (same, unmoved) = (
            descend(algorithm, n, experience(algorithm, b)) for n, b in ((now, clean), (garbage, spoiled))
        )
        assert torch.equal(loss, same)
        assert torch.equal(gradients["logprobs"], unmoved["logprobs"])
        assert not unmoved["logprobs"][~clean.mask].any()

    def test_without_a_winner_the_pair_loss_is_zero_and_ppo_uses_all_rollouts(self):
        batch = random_batch(scores=torch.full((8,), 0.5))
        assert not experience(Pairwise(), batch).has_weights()
        assert experience(PPOPairwise(), batch).has_weights()
        assert experience(Pairwise(), random_batch()).has_weights()

    def test_only_rollouts_in_a_pair_have_a_kl_penalty(self):
        algorithm = Pairwise(pairs=Pairing(selector="consecutive"))
        batch = random_batch(scores=tensor([0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0]))  # only rows 0 and 2 differ
        weights = experience(algorithm, batch).weights
        assert weights.any(1).tolist() == [True, False, True] + [False] * 5
        assert_close(weights[2, :4], torch.ones(4))
