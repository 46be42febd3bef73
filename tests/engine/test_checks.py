"""Each check fires on a run that violates it, and stops the run, warns or is silent according to its level."""

from itertools import islice

import pytest
import torch
from bigram import METHODS, Bigram, ConstantScore, GradientDependent, Stream, WrongReference, engine, start, weights
from test_update import imitate

from alignbench.core.errors import InvariantBroken
from alignbench.engine.checks import Invariants, weights_checksum
from alignbench.engine.run_state import RunState

GRPO = METHODS["GRPO"]
TOO_LITTLE = 1e-12
BROKEN = {
    "trainable": lambda: {"policy": Bigram(frozen=True)},
    "reference_kl": lambda: {"policy": WrongReference()},
    "first_ratio": lambda: {"policy": GradientDependent()},
    "weights_moved": lambda: {"rate": TOO_LITTLE},
    "no_signal": lambda: {"scorer": ConstantScore(1.0)},
}
every_break = pytest.mark.parametrize("name", BROKEN)


def run(name, level, count=1, algorithm=None, **options):
    algorithm = algorithm or GRPO()
    checks = Invariants(**{name: level}, no_signal_patience=1)
    running = engine(algorithm, invariants=checks, **options)
    return list(islice(running.run(Stream(), start(algorithm)), count))


@every_break
def test_a_broken_run_is_stopped(name):
    with pytest.raises(InvariantBroken, match=rf"\(invariants\.{name}=warn continues"):
        run(name, "error", **BROKEN[name]())


@every_break
def test_a_broken_run_continues_with_a_warning_at_level_warn(name):
    reports = run(name, "warn", count=2, **BROKEN[name]())
    assert any(f"(invariants.{name})" in warning for warning in reports[0].warnings)


@every_break
def test_a_broken_run_is_silent_at_level_off(name):
    reports = run(name, "off", **BROKEN[name]())
    assert not any(f"invariants.{name}" in warning for warning in reports[0].warnings)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_without_problems_has_no_warnings(method):
    reports = run("no_signal", "error", count=5, algorithm=METHODS[method]())
    assert [r.warnings for r in reports] == [()] * 5


def test_a_trainable_critic_does_not_hide_a_frozen_policy():
    algorithm = METHODS["PPO"]()
    policy = Bigram(critic=True, frozen=True)
    with pytest.raises(InvariantBroken, match="trainable"):
        run("trainable", "error", algorithm=algorithm, policy=policy)
    assert len(run("trainable", "warn", algorithm=algorithm, policy=policy)) == 1


def test_a_sampler_at_another_temperature_is_detected():
    with pytest.raises(InvariantBroken, match="sampler and the scoring pass"):
        run("first_ratio", "error", temperature=1.3)


def test_importance_weights_need_a_large_enough_effective_sample_size():
    near = Invariants().check_importance(0.5)
    assert near == []
    tight = Invariants(least_effective_share=0.99)
    assert engine_shares(tight, temperature=1.0) == pytest.approx([1.0])
    with pytest.raises(InvariantBroken, match=r"effective sample size .*\(invariants\.importance=warn"):
        engine_shares(tight, temperature=3.0)


def engine_shares(checks, temperature):
    running = engine(GRPO(), invariants=checks, temperature=temperature, importance_cap=2.0)
    return [
        report.metrics["rollout/effective_share"]
        for report in islice(running.run(Stream(), start(running.algorithm)), 1)
    ]


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_nan_reward_never_reaches_the_weights(score):
    running = engine(GRPO(), scorer=ConstantScore(score))
    before = weights(running.policy)
    with pytest.raises(InvariantBroken, match="a reward is"):
        next(running.run(Stream(), start(running.algorithm)))
    assert torch.equal(weights(running.policy)[0], before[0])


class Exploding(Bigram):
    """Its log-probabilities are fine until a gradient is taken of them."""

    def __call__(self, batch):
        now = super().__call__(batch)
        if torch.is_grad_enabled() and now.logprobs.requires_grad:
            now.logprobs.register_hook(lambda gradient: gradient * float("nan"))
        return now


def test_a_nan_gradient_never_reaches_the_weights():
    policy = Exploding()
    before = weights(policy)
    with pytest.raises(InvariantBroken, match="grad norm is nan"):
        run("finite", "error", policy=policy)
    assert torch.equal(weights(policy)[0], before[0])


def test_a_nan_gradient_is_reported_according_to_the_level():
    assert "grad norm is nan" in " ".join(run("finite", "warn", policy=Exploding())[0].warnings)
    assert not run("finite", "off", policy=Exploding())[0].warnings


@pytest.mark.parametrize("level", ["warn", "off"])
def test_a_step_with_a_nan_loss_is_skipped(level):
    policy = Exploding()
    before = {name: weight.clone() for name, weight in policy.trainable()}
    report = run("finite", level, policy=policy)[0]
    assert all(torch.equal(before[name], weight) for name, weight in policy.trainable())
    assert report.state.optimizer_steps == 0


def test_steps_without_signal_are_counted_up_to_the_patience():
    checks = Invariants(no_signal_patience=3)
    assert [bool(checks.check_signal(n)) for n in range(8)] == [False, False, False, True, False, False, True, False]


def test_drift_is_reported_each_time_the_kl_rises_above_the_maximum():
    checks, kls = Invariants(most_kl=0.5), [0.0, 0.4, 0.6, 0.9, 0.5, 0.7]
    told = [checks.check_drift(kl, before) for before, kl in zip([0.0, *kls], kls, strict=False)]
    assert [bool(warning) for warning in told] == [False, False, True, False, False, True]
    assert "0.6 nats per response" in told[2][0]
    assert not Invariants().check_drift(99.0, 0.0)
    with pytest.raises(InvariantBroken, match="invariants.drift=warn continues"):
        Invariants(most_kl=0.5, drift="error").check_drift(0.6, 0.0)


def test_a_run_that_drifts_has_a_warning():
    running = engine(GRPO(), invariants=Invariants(most_kl=1e-9), rate=0.1)
    first, *others = islice(running.run(Stream(), start(running.algorithm)), 5)
    assert first.warnings == ()
    assert any("(invariants.drift)" in warning for report in others for warning in report.warnings)


def test_a_resumed_run_reports_drift_at_the_same_steps():
    """A run that stands above the limit when it stops is told nothing again when it goes on."""

    def warned(state, policy, count):
        running = engine(GRPO(), policy=policy, invariants=Invariants(most_kl=1e-9), rate=0.1)
        reports = list(islice(running.run(Stream(), state or start(running.algorithm)), count))
        return [bool(report.warnings) for report in reports], RunState.from_dict(reports[-1].state.as_dict())

    whole, _ = warned(None, Bigram(), 4)
    assert whole == [False, True, False, False]
    policy = Bigram()
    first, state = warned(None, policy, 3)
    assert first + warned(state, policy, 1)[0] == whole


def test_only_the_first_step_compares_with_the_reference():
    policy = WrongReference()
    running = engine(GRPO(), policy=policy)
    state = start(running.algorithm).after()
    assert next(running.run(Stream(), state)).warnings == ()


def test_the_tolerance_of_the_first_pass_can_be_wider():
    checks = Invariants(ratio_tolerance=0.5)
    assert checks.check_first_pass(0.4, "two passes") == []
    with pytest.raises(InvariantBroken):
        checks.check_first_pass(0.6, "two passes")
    with pytest.raises(InvariantBroken):
        checks.check_first_pass(float("nan"), "two passes")


def test_the_weights_checksum_sees_every_parameter():
    policy = Bigram(critic=True)
    before = weights_checksum(policy.trainable())
    with torch.no_grad():
        policy.value[3] += 1e-6
    assert not torch.equal(before, weights_checksum(policy.trainable()))
    assert weights_checksum([]).shape == (0, 2)


def test_sft_is_checked_too():
    with pytest.raises(InvariantBroken, match="trainable"):
        imitate(policy=Bigram(frozen=True))
    assert "invariants.trainable" in imitate(policy=Bigram(frozen=True), trainable="warn")[0][0].warnings[0]
    with pytest.raises(InvariantBroken, match="weights_moved"):
        imitate(rate=TOO_LITTLE)
    policy = Exploding()
    before = weights(policy)
    with pytest.raises(InvariantBroken, match="grad norm is nan"):
        imitate(policy=policy)
    assert torch.equal(weights(policy)[0], before[0])
