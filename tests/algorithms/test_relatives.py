"""Variants of GRPO, by hand and in the special cases in which they equal each other."""

from dataclasses import replace

import pytest
import torch
from scipy import stats
from small_batches import descend, experience, forward, random_batch, scored
from torch import tensor
from torch.testing import assert_close

from alignbench.algorithms.bnpo import BNPO
from alignbench.algorithms.cispo import CISPO
from alignbench.algorithms.dynamic_sampling import DynamicSampling
from alignbench.algorithms.gdpo import GDPO
from alignbench.algorithms.grpo import GRPO
from alignbench.algorithms.gspo import GSPO
from alignbench.algorithms.kl import FixedKL
from alignbench.algorithms.overlong import Overlong
from alignbench.algorithms.ppo import PPO
from alignbench.algorithms.reinforce_pp import ReinforcePP
from alignbench.algorithms.sapo import SAPO
from alignbench.core.errors import UserError
from alignbench.equations.advantages import beta_divided, standardised

NO_KL = FixedKL(placement="none", coef=0.0)


def one_token(scores, group, **fields):
    """A batch whose responses are single tokens."""
    flat = -torch.ones(len(scores), 1)
    return scored(old_logprobs=flat, ref_logprobs=flat, scores=tensor(scores), group=tensor(group), **fields)


def of_rollouts(batch):
    return batch.advantages[:, 0]


def moved(batch, *log_ratios):
    """A policy whose tokens have these log-ratios to the sampler's."""
    return replace(forward(batch), logprobs=(batch.old_logprobs + tensor(log_ratios)).requires_grad_())


class TestReinforcePP:
    def test_by_hand(self):
        """Rewards -0.05 and 1.05 in the first response, 0 in the second: to go 1, 1.05 and 0, then the z-score."""
        batch = scored(
            old_logprobs=tensor([[-1.0, -2.0], [-1.0, 0.0]]),
            ref_logprobs=tensor([[-1.5, -1.5], [-1.0, 0.0]]),
            mask=tensor([[True, True], [True, False]]),
            scores=tensor([1.0, 0.0]),
            group=tensor([0, 1]),
            kl_coef=0.1,
        )
        mean = (1.0 + 1.05 + 0.0) / 3
        spread = (((1 - mean) ** 2 + (1.05 - mean) ** 2 + mean**2) / 3) ** 0.5
        expected = tensor([[1 - mean, 1.05 - mean], [-mean, 0.0]]) / spread
        assert_close(ReinforcePP().credit(batch).advantages, expected)

    def test_it_is_ppo_whose_critic_always_predicts_zero(self):
        batch = random_batch(values=torch.zeros(8, 5))
        n = int(batch.mask.sum())
        ppo = PPO(lam=1.0).credit(batch).advantages  # its deviation is that of n - 1
        assert_close(ReinforcePP().credit(batch).advantages, ppo * (n / (n - 1)) ** 0.5)

    def test_with_a_baseline_it_is_the_centred_score_over_the_deviation_of_all_centred_scores(self):
        batch = one_token([0.0, 1.0, 3.0, 5.0], [0, 0, 1, 1])
        credit = ReinforcePP(group_baseline=True, group_size=2, kl=NO_KL).credit(batch)
        assert_close(of_rollouts(credit), tensor([-0.5, 0.5, -1.0, 1.0]) / 0.625**0.5)

    def test_without_spread_nothing_is_learned(self):
        batch = one_token([0.35, 0.35], [0, 1])
        assert of_rollouts(ReinforcePP(kl=NO_KL).credit(batch)).abs().max() < 1e-3


def test_lite_ppo_divides_by_the_deviation_of_all_scores():
    """0, 1, 3, 5 have mean 2.25 and squares 14.75 around it, over 3."""
    batch = one_token([0.0, 1.0, 3.0, 5.0], [0, 0, 1, 1])
    lite = GRPO(std_over="batch", eps=0.0).credit(batch)
    assert_close(of_rollouts(lite), tensor([-0.5, 0.5, -1.0, 1.0]) / (14.75 / 3) ** 0.5)


def test_with_one_group_the_batch_is_the_group():
    batch = one_token([0.0, 1.0, 3.0, 5.0], [7, 7, 7, 7])
    assert_close(GRPO(std_over="batch").credit(batch).advantages, GRPO().credit(batch).advantages)


def test_whitened_advantages_have_deviation_one_over_the_step_and_groups_without_signal_stay_at_zero():
    """z-scores of -r, r, 0, 0 with r = sqrt(1/2) have squares 1 around 0, over 3."""
    batch = one_token([0.0, 1.0, 5.0, 5.0], [0, 0, 1, 1])
    once, twice = (of_rollouts(GRPO(eps=0.0, whiten_advantages=w).credit(batch)) for w in (False, True))
    assert_close(once, tensor([-0.5, 0.5, 0.0, 0.0]).sign() * 0.5**0.5)
    assert_close(twice, once * 3**0.5)
    assert not twice[2:].any()
    silent = one_token([5.0] * 4, [0, 0, 1, 1])
    assert not of_rollouts(GRPO(whiten_advantages=True).credit(silent)).any()


class TestGSPO:
    def test_by_hand(self):
        """Log-ratios 0.2 and 0.4 make e^0.3 for the whole response; the hole and the end do not count."""
        batch = scored(
            old_logprobs=-torch.ones(2, 3),
            ref_logprobs=-torch.ones(2, 3),
            scores=tensor([1.0, 0.0]),
            group=tensor([0, 0]),
            mask=tensor([[True, False, True], [True, False, False]]),
        )
        algorithm = GSPO(clip_low=0.5, clip_high=0.5, kl=NO_KL)
        now = moved(batch, [0.2, 9.0, 0.4], [-0.1, 9.0, 9.0])
        assert_close(algorithm.ratio(now, algorithm.credit(batch))[:, 0], tensor([0.3, -0.1]).exp())
        loss, _ = descend(algorithm, now, experience(algorithm, batch))
        a = 0.5**0.5
        assert_close(loss, (-a * tensor(0.3).exp() + a * tensor(-0.1).exp()) / 2)

    def test_a_response_is_clipped_as_a_whole(self):
        batch = one_token([1.0, 0.0], [0, 0])
        batch = replace(
            scored(
                old_logprobs=-torch.ones(2, 2), ref_logprobs=-torch.ones(2, 2), scores=batch.scores, group=batch.group
            )
        )
        algorithm = GSPO(kl=NO_KL)
        now = moved(batch, [0.9, -0.7], [0.0, 0.0])
        _, gradients = descend(algorithm, now, experience(algorithm, batch))
        assert not gradients["logprobs"][0].any()
        assert gradients["logprobs"][1].all()

    def test_for_single_tokens_it_is_grpo(self):
        batch = one_token([0.0, 1.0, 3.0, 5.0], [0, 0, 1, 1], kl_coef=0.1)
        settings = {"clip_low": 0.1, "clip_high": 0.3, "reduction": "sequence_mean"}
        now = moved(batch, [0.5], [-0.2], [0.1], [-0.4])
        results = [descend(a, now, experience(a, batch)) for a in (GSPO(**settings), GRPO(**settings))]
        assert_close(results[0], results[1])


class TestCISPO:
    def test_by_hand(self):
        """Ratios 2 and 1/4, weights at most 1.5; log pi is -1 + log 2 and -1 - log 4."""
        batch = one_token([1.0, 0.0], [0, 0])
        algorithm = CISPO(weight_high=1.5, kl=NO_KL)
        now, a, log2 = moved(batch, [2**0.0 * tensor(2.0).log()], [tensor(0.25).log()]), 0.5**0.5, tensor(2.0).log()
        loss, gradients = descend(algorithm, now, experience(algorithm, batch))
        assert_close(loss, (-1.5 * a * (-1 + log2) + 0.25 * a * (-1 - 2 * log2)) / 2)
        assert_close(gradients["logprobs"], tensor([[-1.5 * a / 2], [0.25 * a / 2]]))

    def test_every_token_keeps_its_gradient(self):
        batch = experience(CISPO(kl=NO_KL), random_batch())
        _, gradients = descend(CISPO(kl=NO_KL), forward(batch, moved=3.0), batch)
        assert gradients["logprobs"][batch.mask].all()

    def test_within_the_bounds_its_gradient_is_that_of_grpo_without_clipping(self):
        free = GRPO(clip_low=0.999, clip_high=1e6)
        batch = experience(free, random_batch())
        now = forward(batch, moved=0.3)
        (_, by_cispo), (_, by_grpo) = (descend(a, now, batch) for a in (CISPO(weight_high=100.0), free))
        assert_close(by_cispo, by_grpo)


class TestSAPO:
    def test_by_hand(self):
        """-4 sigmoid(1) A for ratio 2 and tau 1; -4/2 sigmoid(2 (1/2 - 1)) A for ratio 1/2 and tau 2."""
        batch = one_token([1.0, 0.0], [0, 0])
        algorithm = SAPO(tau_negative=2.0, kl=NO_KL)
        now, a = moved(batch, [tensor(2.0).log()], [tensor(0.5).log()]), 0.5**0.5
        loss, _ = descend(algorithm, now, experience(algorithm, batch))
        assert_close(loss, tensor((-2.924234 * a + 0.537883 * a) / 2))

    def test_the_gate_closes_smoothly(self):
        batch = experience(SAPO(kl=NO_KL), random_batch())
        _, gradients = descend(SAPO(kl=NO_KL), forward(batch, moved=1.0), batch)
        assert gradients["logprobs"][batch.mask].all()


class TestBNPO:
    def test_by_hand(self):
        """p of 1/4 and 3/4: mean 1/2, variance 1/8, so a = b = 1/2 and alpha = beta = 7/6."""
        batch = one_token([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0], [0] * 4 + [1] * 4)
        density = stats.beta(7 / 6, 7 / 6).pdf(0.25)
        expected = tensor([-0.25, -0.25, -0.25, 0.75, 0.25, 0.25, 0.25, -0.75]) / density
        assert_close(of_rollouts(BNPO(kl=NO_KL).credit(batch)), expected)

    def test_a_density_of_three_halves_is_the_z_score_and_one_of_one_the_centred_score(self):
        shares, group = tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0]), tensor([0] * 4 + [1] * 4 + [2] * 2)
        assert_close(beta_divided(shares, group, 1.5, 1.5), torch.pi / 8 * standardised(shares, group, 0.0, ddof=0))
        assert_close(beta_divided(shares, group, 1.0, 1.0), tensor([-0.25] * 3 + [0.75] + [0.25] * 3 + [-0.75, 0, 0]))

    def test_prompts_that_are_equally_hard_make_it_grpo_without_a_deviation(self):
        batch = one_token([0.0, 1.0, 1.0, 0.0], [0, 0, 1, 1])
        assert_close(BNPO().credit(batch).advantages, GRPO(scale_by_std=False).credit(batch).advantages)

    def test_scores_are_rescaled_to_their_range(self):
        batch = one_token([0.0, 1.0, 0.0, 0.0, 1.0, 0.0], [0, 0, 0, 1, 1, 1])
        wide = replace(batch, scores=4 * batch.scores - 2)
        assert_close(BNPO(low=-2.0, high=2.0).credit(wide).advantages, BNPO().credit(batch).advantages)
        with pytest.raises(UserError, match=r"a score is -2.*algo.low=0.*set them to the range"):
            BNPO().credit(wide)

    def test_all_correct_and_all_incorrect_groups_have_zero_advantages(self):
        batch = one_token([0.0, 0.0, 1.0, 1.0, 1.0, 0.0], [0, 0, 1, 1, 2, 2])
        advantages = of_rollouts(BNPO().credit(batch))
        assert torch.equal(advantages[:4], torch.zeros(4))
        assert advantages[4:].all()


class TestGDPO:
    def test_by_hand(self):
        """z-scores are a, -a and -a, a with a = sqrt(1/2); once and three times they make -2a, 2a: deviation 2."""
        parts = {"correct": tensor([1.0, 0.0]), "short": tensor([0.0, 2.0])}
        batch = one_token([1.0, 2.0], [0, 0], components=parts)
        credit = GDPO(part_weights={"correct": 1.0, "short": 3.0}, eps=0.0).credit(batch)
        assert_close(of_rollouts(credit), tensor([-1.0, 1.0]) / 2**0.5)

    def test_components_with_equal_sums_get_different_advantages(self):
        """Right and long, wrong and short, and neither: in the sum the second is hardly better than the third."""
        parts = {"correct": tensor([1.0, 0.0, 0.0]), "short": tensor([0.0, 0.1, 0.0])}
        batch = one_token([1.0, 0.1, 0.0], [0, 0, 0], components=parts)
        gdpo, grpo = (of_rollouts(a.credit(batch)) for a in (GDPO(eps=0.0), GRPO()))
        assert_close(gdpo[0], gdpo[1])
        assert grpo[1] < 0 < gdpo[1]

    def test_with_one_part_it_is_grpo_on_the_scale_of_the_batch(self):
        batch = random_batch()
        grpo = of_rollouts(GRPO().credit(batch))
        assert_close(of_rollouts(GDPO().credit(batch)), grpo / grpo.std(), atol=1e-5, rtol=1e-5)

    def test_the_kl_penalty_is_a_part_too(self):
        batch = random_batch(scores=torch.full((8,), 0.5))
        in_reward = FixedKL(placement="reward", estimator="k1")
        assert not GDPO().credit(batch).advantages.any()
        penalty = ((batch.old_logprobs - batch.ref_logprobs) * batch.mask).sum(1)
        advantages = of_rollouts(GDPO(kl=in_reward).credit(batch))
        alike = of_rollouts(GDPO().credit(replace(batch, scores=-penalty)))
        assert_close(advantages, alike, atol=1e-4, rtol=1e-4)

    def test_an_unknown_reward_component_is_an_error(self):
        batch = one_token([1.0, 2.0], [0, 0], components={"correct": tensor([1.0, 0.0])})
        with pytest.raises(UserError, match="names style, but the components of this reward are correct"):
            GDPO(part_weights={"style": 1.0}).credit(batch)


class TestDAPO:
    LENGTHS = (6, 7, 8, 10)
    BATCH = scored(
        old_logprobs=-torch.ones(4, 10),
        ref_logprobs=-torch.ones(4, 10),
        scores=tensor([1.0, 1.0, 1.0, 1.0]),
        group=tensor([0, 0, 0, 0]),
        mask=torch.arange(10)[None] < tensor(LENGTHS)[:, None],
    )

    def test_the_penalty_grows_over_the_last_tokens(self):
        assert_close(Overlong(limit=10, buffer=0.4)(self.BATCH), tensor([0.0, 0.25, 0.5, 1.0]))
        assert_close(Overlong(limit=10, buffer=0.4, penalty=3.0)(self.BATCH), tensor([0.0, 0.75, 1.5, 3.0]))

    def test_it_is_subtracted_from_the_score(self):
        credit = GRPO(scale_by_std=False, overlong=Overlong(limit=10, buffer=0.4)).credit(self.BATCH)
        assert_close(of_rollouts(credit), 0.4375 - tensor([0.0, 0.25, 0.5, 1.0]))

    @pytest.mark.parametrize(("mask", "tokens"), [(True, 21), (False, 31)])
    def test_truncated_answers_are_masked_out_of_the_loss_but_count_in_their_group(self, mask, tokens):
        batch = replace(self.BATCH, truncated=tensor([False, False, False, True]))
        algorithm = GRPO(overlong=Overlong(limit=10, buffer=0.4, mask=mask))
        whole = experience(algorithm, batch)
        assert_close(of_rollouts(whole), of_rollouts(GRPO(overlong=Overlong(limit=10, buffer=0.4)).credit(batch)))
        assert_close(whole.weights[0, 0], tensor(1 / tokens))
        assert whole.weights[3].any() != mask

    def test_when_all_answers_are_truncated_no_token_has_a_weight(self):
        batch = replace(self.BATCH, truncated=torch.ones(4, dtype=torch.bool))
        assert not experience(GRPO(overlong=Overlong(limit=10)), batch).has_weights()
        assert experience(GRPO(), batch).has_weights()

    def test_groups_that_differ_are_kept(self):
        batch = one_token([0.0, 1.0, 1.0, 1.0, 0.35, 0.35, 0.35], [0, 0, 1, 1, 2, 2, 2])
        assert DynamicSampling()(batch).tolist() == [True, True] + [False] * 5

    def test_clip_higher_allows_larger_ratios_for_positive_advantages(self):
        batch = one_token([1.0, 0.0], [0, 0])
        now = moved(batch, [tensor(1.25).log()], [0.0])
        gradients = [
            descend(a, now, experience(a, batch))[1]["logprobs"][0].abs().item()
            for a in (GRPO(kl=NO_KL), GRPO(kl=NO_KL, clip_high=0.28))
        ]
        assert gradients[0] == 0
        assert gradients[1] == pytest.approx(1.25 * 0.5**0.5 / 2, rel=1e-5)
