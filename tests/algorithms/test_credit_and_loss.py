"""Each algorithm against its equation, and against related algorithms."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_batches import (
    GROUP_SIZE,
    LENGTHS,
    PER_TOKEN,
    descend,
    experience,
    forward,
    random_batch,
    scored,
)
from torch import tensor
from torch.testing import assert_close

from alignbench.algorithms.bnpo import BNPO
from alignbench.algorithms.cispo import CISPO
from alignbench.algorithms.gdpo import GDPO
from alignbench.algorithms.grpo import GRPO
from alignbench.algorithms.gspo import GSPO
from alignbench.algorithms.kl import FixedKL
from alignbench.algorithms.overlong import Overlong
from alignbench.algorithms.ppo import PPO
from alignbench.algorithms.reinforce_pp import ReinforcePP
from alignbench.algorithms.rloo import RLOO
from alignbench.algorithms.sapo import SAPO

IN_LOSS, IN_REWARD = FixedKL(), FixedKL(placement="reward", estimator="k1")
PLAIN_PPO = PPO(value_coef=0.0, whiten_advantages=False)
ALGORITHMS = {
    "ppo": PPO(entropy_coef=0.1, dual_clip=3.0),
    "ppo, kl in loss, sequence mean": PPO(kl=IN_LOSS, reduction="sequence_mean", value_clip=None),
    "grpo": GRPO(dual_clip=3.0),
    "grpo, kl in reward": GRPO(kl=IN_REWARD, scale_by_std=False, reduction="sequence_mean"),
    "grpo, plain k3": GRPO(kl=FixedKL(exact_gradient=False)),
    "dr. grpo": GRPO(scale_by_std=False, reduction="fixed_length", fixed_length=5),
    "rloo": RLOO(),
    "lite ppo": GRPO(std_over="batch"),
    "reinforce++": ReinforcePP(),
    "reinforce++, baseline": ReinforcePP(group_baseline=True, group_size=4, kl=FixedKL(estimator="k2")),
    "overlong, masked": GRPO(overlong=Overlong(limit=5, buffer=0.5)),
    "gspo": GSPO(),
    "cispo": CISPO(),
    "sapo": SAPO(),
    "bnpo": BNPO(low=-5.0, high=5.0),
    "gdpo": GDPO(),
}
every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS.values(), ids=ALGORITHMS.keys())


def of_rollouts(batch):
    """The one advantage of each rollout, read at its first token."""
    return batch.advantages[:, 0]


class TestGradient:
    @pytest.mark.parametrize(
        "algorithm",
        [
            PLAIN_PPO,
            GRPO(),
            RLOO(),
            GRPO(std_over="batch"),
            ReinforcePP(),
            GSPO(),
            CISPO(),
            SAPO(),
            GDPO(),
            BNPO(low=-5.0, high=5.0),
        ],
        ids=lambda algorithm: type(algorithm).__name__,
    )
    def test_at_ratio_one_it_is_the_policy_gradient(self, algorithm):
        batch = experience(algorithm, random_batch(), kl_coef=0.0)
        _, gradients = descend(algorithm, forward(batch), batch)
        assert_close(gradients["logprobs"], -batch.advantages * batch.weights)
        assert gradients["logprobs"].abs().max() > 1e-4
        assert torch.equal(gradients["values"], torch.zeros_like(batch.values))

    @every_algorithm
    def test_values_outside_the_mask_have_no_effect(self, algorithm):
        """Neither in the credit, nor in the loss, nor in any gradient."""
        clean = random_batch()
        spoiled = replace(clean, **{name: getattr(clean, name).where(clean.mask, 1e6) for name in PER_TOKEN})
        now = forward(clean, moved=0.3)
        garbage = replace(
            now,
            **{
                name: getattr(now, name).detach().where(clean.mask, -1e6).requires_grad_()
                for name in ("logprobs", "entropy", "values")
            },
        )
        before, after = experience(algorithm, clean), experience(algorithm, spoiled)
        assert torch.equal(after.advantages, before.advantages)
        assert before.returns is None or torch.equal(after.returns, before.returns)
        (loss, gradients), (same, unmoved) = descend(algorithm, now, before), descend(algorithm, garbage, after)
        assert loss != 0
        assert torch.equal(loss, same)
        for name in gradients:
            assert torch.equal(gradients[name], unmoved[name])
            assert not gradients[name][~clean.mask].any()

    def test_infinity_does_not_leak_from_outside_the_mask(self):
        batch = experience(GRPO(), random_batch())
        losses = torch.ones(batch.mask.shape).where(batch.mask, torch.inf)
        assert_close(batch.total(losses), tensor(1.0))

    @every_algorithm
    @given(deal=st.lists(st.integers(0, 3), min_size=len(LENGTHS), max_size=len(LENGTHS)))
    @settings(max_examples=15, deadline=None)
    def test_any_split_into_microbatches_adds_up(self, algorithm, deal):
        batch = experience(algorithm, random_batch())
        now = forward(batch, moved=0.3)
        whole, gradients = descend(algorithm, now, batch)
        total, sums = torch.zeros(()), {name: torch.zeros_like(g) for name, g in gradients.items()}
        for rows in ((tensor(deal) == i).nonzero()[:, 0] for i in set(deal)):
            part = replace(now, logprobs=now.logprobs[rows], entropy=now.entropy[rows], values=now.values[rows])
            loss, some = descend(algorithm, part, batch[rows])
            total = total + loss
            for name in sums:
                sums[name][rows] += some[name]
        assert_close(total, whole)
        assert_close(sums, gradients)

    @pytest.mark.parametrize(
        ("reduction", "long_over_short"),
        [
            ("token_mean", 1.0),
            ("fixed_length", 1.0),
            ("sequence_sum", 1.0),
            ("sequence_mean", 1 / 4),
        ],
    )
    def test_length_bias(self, reduction, long_over_short):
        """Two answers equally good, one four times as long: how hard is each of their tokens pulled?"""
        algorithm = GRPO(
            group_size=4,
            scale_by_std=False,
            reduction=reduction,
            fixed_length=8 if reduction == "fixed_length" else None,
        )
        batch = experience(
            algorithm,
            scored(
                old_logprobs=-torch.ones(4, 8),
                ref_logprobs=-torch.ones(4, 8),
                group=torch.zeros(4, dtype=torch.long),
                scores=tensor([1.0, 1.0, 0.0, 0.0]),
                mask=torch.arange(8)[None] < tensor([8, 2, 5, 5])[:, None],
            ),
        )
        _, gradients = descend(algorithm, forward(batch), batch)
        assert_close(gradients["logprobs"][0, 0] / gradients["logprobs"][1, 0], tensor(long_over_short))


class TestGroups:
    def test_rloo_is_grpo_without_std_times_g_over_g_minus_one(self):
        batch = random_batch()
        plain = GRPO(group_size=GROUP_SIZE, scale_by_std=False, kl=IN_REWARD, reduction="sequence_sum")
        rloo = RLOO(group_size=GROUP_SIZE)
        assert_close(rloo.credit(batch).advantages, 4 / 3 * plain.credit(batch).advantages)
        _, by_rloo = descend(rloo, forward(batch), experience(rloo, batch))
        _, by_grpo = descend(plain, forward(batch), experience(plain, batch))
        assert_close(by_rloo, {name: 4 / 3 * g for name, g in by_grpo.items()})

    def test_rloo_by_hand(self):
        """Scores 1, 2, 6 less 0.5 times KL sums of 0, 1, 2 are 1, 1.5, 5; each less the mean of the other two."""
        batch = scored(
            old_logprobs=tensor([[-1.0, -1.0], [-1.0, -1.0], [-1.0, -1.0]]),
            ref_logprobs=tensor([[-1.0, -1.0], [-1.5, -1.5], [-4.0, 0.0]]),
            scores=tensor([1.0, 2.0, 6.0]),
            group=torch.zeros(3, dtype=torch.long),
            kl_coef=0.5,
        )
        assert_close(of_rollouts(RLOO().credit(batch)), tensor([1 - 3.25, 1.5 - 3.0, 5 - 1.25]))

    def test_grpo_by_hand(self):
        """Scores 0, 0, 1, 1 have mean 1/2 and deviation sqrt(1/3)."""
        batch = scored(
            old_logprobs=-torch.ones(4, 2),
            ref_logprobs=-2 * torch.ones(4, 2),
            scores=tensor([0.0, 0.0, 1.0, 1.0]),
            group=torch.zeros(4, dtype=torch.long),
            kl_coef=0.5,
        )
        expected = tensor([-0.5, -0.5, 0.5, 0.5])[:, None].expand(4, 2)
        assert_close(GRPO(eps=0.0).credit(batch).advantages, expected * 3**0.5)
        assert_close(GRPO(eps=1.0).credit(batch).advantages, expected / (1 + 3**-0.5))
        assert_close(GRPO(scale_by_std=False).credit(batch).advantages, expected)

    def test_grpo_has_mean_zero_and_deviation_one_in_each_group(self):
        batch = random_batch()
        advantages = of_rollouts(GRPO(eps=0.0).credit(batch))
        for number in (0, 1):
            own = advantages[batch.group == number]
            assert_close(own.mean(), tensor(0.0), atol=1e-6, rtol=0)
            assert_close(own.std(), tensor(1.0))

    @pytest.mark.parametrize("algorithm", [GRPO(), GRPO(scale_by_std=False), RLOO()], ids=["grpo", "no std", "rloo"])
    def test_equal_scores_have_zero_advantages(self, algorithm):
        batch = random_batch(scores=torch.full((8,), 0.35), kl_coef=0.0)
        assert torch.equal(algorithm.credit(batch).advantages, torch.zeros_like(batch.values))

    @every_algorithm
    def test_the_order_of_rollouts_does_not_matter(self, algorithm):
        batch, order = random_batch(), torch.randperm(8, generator=torch.Generator().manual_seed(5))
        assert_close(algorithm.credit(batch[order]).advantages, algorithm.credit(batch).advantages[order])


class TestPPO:
    BATCH = scored(
        old_logprobs=tensor([[-1.0, -2.0]]),
        ref_logprobs=tensor([[-1.5, -1.5]]),
        values=tensor([[0.2, 0.4]]),
        scores=tensor([1.0]),
        group=tensor([0]),
        kl_coef=0.1,
    )

    def test_credit_by_hand(self):
        """log(pi / ref) is 0.5 and -0.5, so the rewards are -0.05 and 1 + 0.05."""
        credit = PPO(gamma=0.9, lam=0.8, whiten_advantages=False).credit(self.BATCH)
        last = 1.05 - 0.4
        first = -0.05 + 0.9 * 0.4 - 0.2 + 0.9 * 0.8 * last
        assert_close(credit.advantages, tensor([[first, last]]))
        assert_close(credit.returns, tensor([[first + 0.2, last + 0.4]]))

    def test_rewards_add_up_to_the_score_less_the_penalty(self):
        """Without discount and without a critic's opinion, the first advantage is the sum of all rewards."""
        batch = random_batch(values=torch.zeros(8, 5))
        penalty = ((batch.old_logprobs - batch.ref_logprobs) * batch.mask).sum(1)
        credit = PPO(lam=1.0, whiten_advantages=False).credit(batch)
        assert_close(of_rollouts(credit), batch.scores - 0.1 * penalty)

    def test_whitening_is_over_the_tokens_of_the_batch_and_leaves_returns_alone(self):
        batch = random_batch()
        white, raw = PPO().credit(batch), PPO(whiten_advantages=False).credit(batch)
        kept = white.advantages[batch.mask]
        assert_close(kept.mean(), tensor(0.0), atol=1e-6, rtol=0)
        assert_close(kept.var(), tensor(1.0))
        assert torch.equal(white.returns, raw.returns)

    def test_loss_by_hand(self):
        """Ratios 2 and 1/2, advantages 1 and -1, and the value loss unclipped and clipped."""
        algorithm = PPO(value_coef=0.5, entropy_coef=0.1, clip_low=0.2, clip_high=0.3)
        batch = experience(algorithm, self.BATCH, advantages=tensor([[1.0, -1.0]]), returns=tensor([[1.0, 1.0]]))
        now = replace(
            forward(self.BATCH),
            logprobs=batch.old_logprobs + tensor([[2.0, 0.5]]).log(),
            values=tensor([[0.3, 1.0]]),
            entropy=tensor([[2.0, 4.0]]),
        )
        policy, value = (-1.3 + 0.8) / 2, (0.5 * 0.7**2 + 0.5 * 0.4**2) / 2
        out = algorithm.loss(now, batch)
        assert_close(out.loss, tensor(policy + 0.5 * value - 0.1 * 3.0))
        assert_close(out.tokens["policy_loss"], tensor([[-1.3, 0.8]]))
        assert_close(out.tokens["value_loss"], tensor([[0.5 * 0.7**2, 0.5 * 0.4**2]]))
        assert out.tokens["clip_fraction"].all()

    @pytest.mark.parametrize("coefficient", [0.0, 0.1])
    def test_an_entropy_bonus_of_zero_computes_no_gradient(self, coefficient):
        algorithm, now = PPO(entropy_coef=coefficient), forward(self.BATCH)
        algorithm.loss(now, experience(algorithm, self.BATCH)).loss.backward()
        assert now.logprobs.grad is not None
        assert (now.entropy.grad is not None) == (coefficient > 0)
