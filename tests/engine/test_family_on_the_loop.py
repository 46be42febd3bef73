"""Every method in the RL loop: gradients independent of microbatches, exact resuming, learning, dynamic sampling."""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from bigram import FAMILY, LIMIT, METHODS, PROMPTS, TARGET, ConstantScore, Stream, TargetCounter, engine, start, weights
from torch import tensor
from torch.testing import assert_close

from alignbench.core.batches import Scores, concatenate
from alignbench.core.errors import InvariantBroken
from alignbench.core.seeds import address
from alignbench.engine.collect_rollouts import first_groups
from alignbench.engine.run_state import RunState
from alignbench.engine.score import microbatches, score
from alignbench.engine.token_metrics import TokenMeans
from alignbench.engine.update import importance

RELATIVES = [name for name in FAMILY if name not in METHODS]
every_relative = pytest.mark.parametrize("method", RELATIVES)


class StartsWell(TargetCounter):
    """One point for a response that begins with the wanted token: many groups have none."""

    def __call__(self, rollouts):
        return Scores(total=(rollouts.responses[:, 0] == TARGET).float())


def steps(running, count, state=None):
    return list(islice(running.run(Stream(), state or start(running.algorithm)), count))


def gathered(method):
    """An engine and its first experience, made by a policy that has moved since."""
    running = engine(FAMILY[method]())
    rollouts = running.sampler(next(Stream().after(0)), running.algorithm.group_size, 11)
    experience = running.algorithm.credit(score(rollouts, running.scorer, running.policy, 0.02, 32))
    with torch.no_grad():
        running.policy.table += 0.05 * torch.randn(
            running.policy.table.shape, generator=torch.Generator().manual_seed(3)
        )
    return running, experience


def gradient(running, experience, size):
    """Gradient and loss of one optimizer step whose rows are taken `size` at a time."""
    for _, parameter in running.policy.trainable():
        parameter.grad = None
    loss, *_ = replace(running.update, microbatch_size=size)._accumulate(
        running.algorithm.with_weights(experience), TokenMeans()
    )
    return torch.cat([p.grad.flatten() for _, p in running.policy.trainable()]), loss


@every_relative
def test_neither_the_microbatch_size_nor_the_order_of_rows_changes_the_gradient(method):
    running, experience = gathered(method)
    whole, loss = gradient(running, experience, 64)
    assert whole.abs().max() > 1e-3
    shuffled = experience[torch.randperm(len(experience), generator=torch.Generator().manual_seed(1))]
    for rows, size in ((experience, 1), (experience, 3), (experience, 7), (shuffled, 64), (shuffled, 5)):
        found, same = gradient(running, rows, size)
        assert_close(found, whole, atol=1e-6, rtol=1e-4)
        assert same == pytest.approx(loss, abs=1e-5)


def test_whole_groups_are_never_split():
    _, experience = gathered("winner_vs_all logistic")
    shuffled = experience[torch.randperm(32, generator=torch.Generator().manual_seed(0))]
    for size, groups_at_once in ((1, 1), (7, 1), (8, 2), (11, 2), (100, 8)):
        parts = list(microbatches(shuffled, size, shuffled.group))
        assert sorted(torch.cat(parts).tolist()) == list(range(32))
        assert [len(part) for part in parts] == [4 * groups_at_once] * (8 // groups_at_once)
        assert sum(len(shuffled.group[part].unique()) for part in parts) == 8


@every_relative
def test_the_score_rises(method):
    scores = [r.metrics["rewards/mean"] for r in steps(engine(FAMILY[method]()), 25)]
    assert sum(scores[-5:]) / 5 > 1.5 * sum(scores[:3]) / 3


@pytest.mark.parametrize("method", ["DAPO", "random linear"])
def test_a_resumed_run_is_the_run_it_resumes(method):
    whole = engine(FAMILY[method](), scorer=StartsWell())
    reports = steps(whole, 4)
    first_half = engine(FAMILY[method](), scorer=StartsWell())
    half = steps(first_half, 2)[-1].state
    second = replace(first_half, seed=first_half.seed)
    rest = steps(second, 2, RunState.from_dict(half.as_dict()))
    assert rest[-1].state.prompts_seen == reports[-1].state.prompts_seen
    assert all(torch.equal(a, b) for a, b in zip(weights(second.policy), weights(whole.policy), strict=True))


class TestDynamicSampling:
    def test_dynamic_sampling_fills_a_step_and_counts_every_draw_in_the_budget(self):
        running = engine(FAMILY["DAPO"](), scorer=StartsWell(), epochs=1)
        reports, before = steps(running, 4), RunState()
        assert max(len(r.scored) for r in reports) > PROMPTS * 4, "some step had to draw again"
        for report in reports:
            drawn, state = report.scored, report.state
            assert state.prompts_seen - before.prompts_seen == len(drawn) // 4 in (8, 16, 24)
            assert state.completions - before.completions == len(drawn)
            assert state.tokens_written - before.tokens_written == int(drawn.mask.sum())
            assert len(drawn.group.unique()) == len(drawn) // 4
            assert report.metrics["group_stats/no_signal_fraction"] == 0
            kept = report.metrics["group_stats/num_groups"]
            assert kept <= PROMPTS
            assert kept == PROMPTS or len(drawn) == 24 * 4
            assert report.metrics["group_stats/kept_fraction"] == pytest.approx(kept * 4 / len(drawn))
            before = state

    def test_training_flops_count_only_selected_rollouts(self):
        running = engine(FAMILY["DAPO"](overlong=None), scorer=StartsWell(), epochs=1)
        report = steps(running, 1)[0]
        drawn = report.scored
        names = drawn.group[running.algorithm.dynamic_sampling(drawn)].unique()[:PROMPTS]
        trained = drawn.lengths()[torch.isin(drawn.group, names)].sum()
        assert report.state.flops == 10 * (3 * int(drawn.lengths().sum()) + 3 * int(trained))

    def test_the_first_draw_is_that_of_a_step_without_dynamic_sampling_and_the_others_are_new(self):
        plain, dynamic = (steps(engine(FAMILY[name](), scorer=StartsWell()), 1)[0].scored for name in ("GRPO", "DAPO"))
        assert torch.equal(dynamic.responses[:32], plain.responses)
        running, seeds = engine(FAMILY["DAPO"](), scorer=StartsWell()), []
        draw = running.sampler
        steps(replace(running, sampler=lambda b, size, seed: seeds.append(seed) or draw(b, size, seed)), 2)
        assert len(set(seeds)) == len(seeds) > 2
        assert seeds[0] == address(0, "rollout", 0)

    def test_without_different_scores_sampling_ends_after_the_maximum_draws(self):
        running = engine(
            FAMILY["DAPO"](overlong=None, kl=type(FAMILY["DAPO"]().kl)(coef=0.0)), scorer=ConstantScore(1.0)
        )
        before = weights(running.policy)
        report = steps(running, 1)[0]
        assert report.state.prompts_seen == 3 * PROMPTS
        assert report.metrics["group_stats/num_groups"] == PROMPTS
        assert report.state.steps_without_signal == 1
        assert torch.equal(before[0], weights(running.policy)[0])

    def test_batches_of_different_widths_are_concatenated(self):
        running = engine(FAMILY["GRPO"]())
        rollouts = running.sampler(next(Stream().after(0)), 4, 11)
        scored = score(rollouts, running.scorer, running.policy, 0.02, 32)
        narrow = replace(
            scored,
            prompts=scored.prompts[:, 1:],
            **{
                name: getattr(scored, name)[:, :3]
                for name in ("responses", "mask", "logprobs", "old_logprobs", "ref_logprobs")
            },
        )
        both = concatenate([narrow, scored])
        assert both.prompts.shape == (64, 2)
        assert both.prompts[0].tolist() == [0, int(scored.prompts[0, 1])]
        assert both.mask.shape == (64, LIMIT)
        assert not both.mask[:32, 3:].any()
        assert torch.equal(both.responses[32:], scored.responses)
        assert both.group.tolist() == [i // 4 for i in range(64)]
        assert both.texts == scored.texts * 2
        assert torch.equal(both.components["hits"][:32], scored.components["hits"])
        chosen = first_groups(both, both.group % 3 == 1, 2)
        assert chosen.group.tolist() == [1] * 4 + [4] * 4


class TestPairs:
    def test_without_a_winner_there_is_no_optimizer_step_and_no_momentum(self):
        running = engine(FAMILY["winner_vs_all logistic"]())
        state = steps(running, 2)[-1].state
        before = weights(running.policy)
        report = steps(replace(running, scorer=ConstantScore(1.0)), 1, state)[0]
        assert report.state.optimizer_steps == state.optimizer_steps == 8
        assert report.metrics["group_stats/pairs"] == 0
        assert report.metrics["group_stats/unpaired_fraction"] == 1
        assert torch.equal(before[0], weights(running.policy)[0])

    def test_pairs_and_groups_without_one_are_counted(self):
        report = steps(engine(FAMILY["winner_vs_all logistic"](), scorer=StartsWell()), 1)[0]
        wins = report.scored.scores.view(PROMPTS, 4).sum(1)
        paired = ((wins > 0) & (wins < 4)).sum().item()
        assert 0 < paired < PROMPTS
        assert report.metrics["group_stats/pairs"] == 3 * paired
        assert report.metrics["group_stats/unpaired_fraction"] == 1 - paired / PROMPTS


class TestImportance:
    def test_by_hand(self):
        running, experience = gathered("GRPO")
        batch = replace(experience, old_logprobs=torch.full((32, LIMIT), -1.0), logprobs=torch.full((32, LIMIT), -1.5))
        batch.logprobs[0, 0], batch.logprobs[0, 1] = -3.0, -0.5
        found = importance(batch, 2.0)
        assert_close(found[0, :3], tensor([2.0, 0.606531, 1.648721]))
        assert torch.equal(importance(batch, None), torch.ones(32, LIMIT))

    def test_a_sampler_with_other_probabilities_is_an_error_or_importance_weighted(self):
        with pytest.raises(InvariantBroken, match="the sampler and the scoring pass"):
            steps(engine(METHODS["GRPO"](), temperature=1.5), 1)
        weighed = steps(engine(METHODS["GRPO"](), temperature=1.5, importance_cap=2.0), 25)
        scores = [report.metrics["rewards/mean"] for report in weighed]
        assert sum(scores[-5:]) / 5 > 1.5 * sum(scores[:3]) / 3

    @pytest.mark.parametrize("method", ["PPO", "GRPO", "CISPO"])
    def test_a_sampler_with_equal_probabilities_has_equal_importance_weights(self, method):
        policies = []
        for cap in (None, 2.0):
            running = engine(FAMILY[method](), importance_cap=cap)
            steps(running, 2)
            policies.append(running.policy)
        assert_close(weights(policies[0]), weights(policies[1]), atol=1e-4, rtol=1e-4)

    def test_the_importance_weighted_gradient_is_that_of_the_policy(self):
        """Five tokens, each as often as the sampler draws it and with its weight: without a cap the bias is gone."""
        policy, sampler = torch.randn(2, LIMIT, generator=torch.Generator().manual_seed(2)).log_softmax(-1)
        worth = torch.arange(float(LIMIT))
        _, experience = gathered("GRPO")
        batch = replace(experience, old_logprobs=policy.expand(32, LIMIT), logprobs=sampler.expand(32, LIMIT))
        drawn = sampler.exp() * importance(batch, 1e9)[0] * worth
        assert_close(drawn.sum(), (policy.exp() * worth).sum())
