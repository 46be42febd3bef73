"""The RL loop on a bigram policy: learning, determinism, resuming, budget counters and metric names."""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from bigram import LIMIT, METHODS, PROMPTS, ConstantScore, Stream, engine, start, weights

from alignbench.core import metric_names
from alignbench.core.errors import InvariantBroken
from alignbench.core.protocols import KLControlState
from alignbench.engine.checks import Invariants
from alignbench.engine.run_state import RunState

every_method = pytest.mark.parametrize("method", METHODS)
NAMES = {
    name
    for names in (
        metric_names.TRAIN,
        metric_names.REWARDS,
        metric_names.GROUPS,
        metric_names.ROLLOUT,
        metric_names.COST,
    )
    for name in names
}


def steps(running, count, state=None):
    return list(islice(running.run(Stream(), state or start(running.algorithm)), count))


def measured(report):
    """All numbers of a step but those of the machine."""
    return {k: v for k, v in report.metrics.items() if not k.startswith(metric_names.COST_PREFIX)}


def counted(state: RunState):
    return {k: v for k, v in state.as_dict().items() if k != "seconds"}


@every_method
def test_the_score_rises(method):
    scores = [r.metrics["rewards/mean"] for r in steps(engine(METHODS[method]()), 25)]
    assert sum(scores[-5:]) / 5 > 2 * sum(scores[:3]) / 3


@every_method
def test_the_same_seed_gives_the_same_run(method):
    one, two = engine(METHODS[method]()), engine(METHODS[method]())
    torch.manual_seed(1)
    first = steps(one, 4)
    torch.manual_seed(2)
    second = steps(two, 4)
    assert [measured(r) for r in first] == [measured(r) for r in second]
    assert all(torch.equal(a, b) for a, b in zip(weights(one.policy), weights(two.policy), strict=True))


@every_method
def test_another_seed_gives_another_run(method):
    one, two = (steps(engine(METHODS[method](), seed=seed), 2) for seed in (0, 1))
    assert [measured(r) for r in one] != [measured(r) for r in two]


@every_method
def test_a_resumed_run_is_the_run_it_resumes(method, tmp_path):
    options = {"schedule": "cosine", "warmup_steps": 3}
    whole = engine(METHODS[method](), **options)
    reports = steps(whole, 6)
    first = engine(METHODS[method](), **options)
    half = steps(first, 3)[-1].state
    torch.save([half.as_dict(), weights(first.policy), first.update.optimizer.adamw.state_dict()], tmp_path / "saved")
    state, learned, adamw = torch.load(tmp_path / "saved")
    second = engine(METHODS[method](), **options)
    with torch.no_grad():
        for (_, p), saved in zip(second.policy.trainable(), learned, strict=True):
            p.copy_(saved)
    second.update.optimizer.adamw.load_state_dict(adamw)
    rest = steps(second, 3, RunState.from_dict(state))
    assert [measured(r) for r in rest] == [measured(r) for r in reports[3:]]
    assert counted(rest[-1].state) == counted(reports[-1].state)
    assert all(torch.equal(a, b) for a, b in zip(weights(second.policy), weights(whole.policy), strict=True))


def test_the_rate_follows_the_optimizer_steps_of_the_whole_run():
    running = engine(METHODS["GRPO"](), rate=0.08, warmup_steps=8)
    found = [r.metrics["train/learning_rate"] for r in steps(running, 3)]
    assert found == pytest.approx([0.04, 0.08, 0.08]), "4 optimizer steps in each step, the rate that of the last"


def test_each_step_samples_with_a_new_seed():
    running, seeds = engine(METHODS["GRPO"]()), []
    draw = running.sampler
    replaced = replace(running, sampler=lambda batch, size, seed: seeds.append(seed) or draw(batch, size, seed))
    steps(replaced, 3)
    assert len(set(seeds)) == 3


@every_method
def test_the_budget_is_counted_exactly(method):
    running = engine(METHODS[method](), epochs=3, minibatches=2)
    reports = steps(running, 2)
    state, scored = reports[-1].state, [r.scored for r in reports]
    assert state.step == 2
    assert state.prompts_seen == 2 * PROMPTS
    assert state.completions == 2 * PROMPTS * running.algorithm.group_size
    assert state.tokens_written == sum(int(s.mask.sum()) for s in scored)
    assert 0 < state.tokens_written < 2 * PROMPTS * 4 * LIMIT
    assert state.optimizer_steps == 2 * 3 * 2
    # 10 for each token: once to sample, twice to score, three times in each of three epochs.
    tokens = sum(int(s.mask.sum()) + 2 * len(s) for s in scored)
    assert state.flops == 10 * tokens * (3 + 3 * 3)
    assert state.seconds > 0


def test_a_skipped_forward_pass_is_not_counted():
    one, two = steps(engine(METHODS["GRPO"](), epochs=1, rescored=False), 2)
    tokens = [int(r.scored.mask.sum()) + 2 * len(r.scored) for r in (one, two)]
    assert one.state.flops == 10 * tokens[0] * (3 + 3)
    assert two.state.flops - one.state.flops == 10 * tokens[1] * (2 + 3)


def test_sampled_log_probabilities_train_the_same_policy():
    again, sampled = (engine(METHODS["GRPO"](), rescored=rescored) for rescored in (True, False))
    for one, other in zip(steps(again, 6), steps(sampled, 6), strict=True):
        assert measured(other) == pytest.approx(measured(one), abs=1e-4)
    assert torch.equal(other.scored.old_logprobs, other.scored.logprobs)
    for a, b in zip(weights(again.policy), weights(sampled.policy), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_log_probabilities_of_another_policy_stop_the_run_with_and_without_rescoring():
    def second(level):
        running = engine(METHODS["GRPO"](), rescored=False, invariants=Invariants(first_ratio=level))
        reports = running.run(Stream(), start(running.algorithm))
        next(reports)
        running.sampler.temperature = 1.1
        return next(reports)

    with pytest.raises(InvariantBroken, match="the update's first pass and the pass before it"):
        second("error")
    assert second("warn").metrics["rollout/sampler_gap"] > 0.01


def test_the_flops_of_a_separate_critic_trunk_are_counted():
    running = engine(METHODS["PPO"](), epochs=3, minibatches=2)
    running.policy.critic_flops_per_token = 4
    report = steps(running, 1)[0]
    tokens = int(report.scored.mask.sum()) + 2 * len(report.scored)
    # 4 for each token once to score, and three times in each of three epochs; 10 as without it.
    assert report.state.flops == tokens * (10 * (3 + 3 * 3) + 4 * (1 + 3 * 3))


@every_method
def test_every_metric_name_is_known(method):
    found = set(steps(engine(METHODS[method]()), 1)[0].metrics)
    components = {f"{metric_names.REWARD_COMPONENT}{name}" for name in ("hits", "tokens")}
    assert found - NAMES == components
    assert NAMES - found <= {
        "train/value_loss",
        "train/value_mean",
        "train/explained_variance",
        "train/value_clip_fraction",
        "group_stats/pairs",
        "group_stats/unpaired_fraction",
        metric_names.SECONDS,
        metric_names.TRACKING_SECONDS,
        metric_names.EVALUATION_SECONDS,
        metric_names.PEAK_MEMORY,
    }
    assert ("train/value_loss" in found) == (method == "PPO")


@every_method
def test_the_first_pass_is_exact_and_starts_at_the_reference(method):
    first = steps(engine(METHODS[method](), epochs=1, minibatches=1), 1)[0].metrics
    assert first["train/first_ratio_gap"] == 0
    assert first["train/ratio_mean"] == 1
    assert first["train/ratio_std"] == 0
    assert first["train/kl_mean"] == 0
    assert first["rollout/kl_sequence"] == 0
    assert first["rollout/sampler_gap"] < 1e-6
    assert first["train/kl_coef"] == METHODS[method]().kl.start.coef


def test_the_kl_penalty_keeps_the_policy_near_its_reference():
    drift = {}
    for coef in (0.0, 5.0):
        algorithm = METHODS["GRPO"](kl=type(METHODS["GRPO"]().kl)(coef=coef))
        drift[coef] = steps(engine(algorithm), 15)[-1].metrics["rollout/kl_sequence"]
    assert drift[5.0] < 0.2 * drift[0.0]


def test_without_a_signal_and_without_a_penalty_nothing_is_learned():
    algorithm = METHODS["GRPO"](kl=type(METHODS["GRPO"]().kl)(coef=0.0))
    running = engine(algorithm, scorer=ConstantScore(1.0))
    before = weights(running.policy)
    report = steps(running, 2)[-1]
    assert report.metrics["group_stats/no_signal_fraction"] == 1
    assert report.metrics["train/grad_norm"] == 0
    assert report.state.steps_without_signal == 2
    assert torch.equal(before[0], weights(running.policy)[0])


def test_a_signal_resets_the_count_of_steps_without_one():
    running = engine(METHODS["GRPO"]())
    state = steps(running, 1, RunState(kl_control=KLControlState(coef=0.02), steps_without_signal=3))[0].state
    assert state.steps_without_signal == 0
