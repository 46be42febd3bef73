"""Observers of a step: checks of its rollouts, its metrics and its cost; they read a step and change nothing."""

from dataclasses import dataclass
from functools import cached_property

from alignbench.core.batches import Experience
from alignbench.core.protocols import KLStats, Policy
from alignbench.engine.checks import Invariants
from alignbench.engine.collect_rollouts import CollectedRollouts
from alignbench.engine.run_state import RunState
from alignbench.engine.step_metrics import EXPERIENCE_METRICS, ROLLOUT_METRICS, all_equal
from alignbench.engine.token_metrics import Metrics
from alignbench.engine.update import Updated


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one step did."""

    state: RunState
    """The state before the step."""
    collected: CollectedRollouts
    experience: Experience
    updated: Updated
    seconds: float

    @cached_property
    def steps_without_signal(self) -> int:
        """Consecutive steps without a learning signal, this one included."""
        return self.state.steps_without_signal + 1 if all_equal(self.experience) else 0

    def kl_stats(self, steps: int) -> KLStats:
        """The KL that the KL controller reads, in a run of that many steps."""
        return KLStats(
            per_sequence=self.collected.metrics["rollout/kl_sequence"],
            per_token=self.collected.metrics["rollout/kl_token"],
            episodes=len(self.collected.sampled),
            progress=(self.state.step + 1) / steps,
        )


def check_rollouts(
    collected: CollectedRollouts, state: RunState, invariants: Invariants, importance_cap: float | None
) -> list[str]:
    """The warnings of the checks that come before credit and update. Raises InvariantBroken."""
    measured, sampled = collected.metrics, collected.sampled
    warnings = invariants.check_reference(sampled, state.step)
    if importance_cap is None:  # With a cap, importance weights correct for the gap.
        warnings += invariants.check_first_pass(measured["rollout/sampler_gap"], "the sampler and the scoring pass")
    else:
        warnings += invariants.check_importance(measured["rollout/effective_share"])
    warnings += invariants.check_finite("a reward", float(sampled.scores.sum()))
    return warnings + invariants.check_drift(measured["rollout/kl_sequence"], before=state.kl)


def measure_step(step: Step) -> Metrics:
    """All metrics of a step, by name."""
    collected, metrics = step.collected, dict(step.collected.metrics)
    for measure_rollouts in ROLLOUT_METRICS:
        metrics |= measure_rollouts(collected.sampled)
    for measure_experience in EXPERIENCE_METRICS:
        metrics |= measure_experience(step.experience)
    metrics |= {
        **step.updated.metrics,
        "train/kl_coef": step.state.kl_control.coef,
        "group_stats/kept_fraction": len(step.experience) / len(collected.sampled),
        "cost/rollout_seconds": collected.rollout_seconds,
        "cost/score_seconds": collected.score_seconds,
        "cost/update_seconds": step.seconds - collected.rollout_seconds - collected.score_seconds,
    }
    if not collected.rescored:  # Then the first pass of the update is the first to compute what was sampled.
        metrics["rollout/sampler_gap"] = step.updated.metrics["train/first_ratio_gap"]
    return metrics


def count_flops(policy: Policy, step: Step) -> float:
    """Estimated floating-point operations of a step.

    Of the policy: one forward pass to sample, two to score (one where the sampler's log-probabilities are used), and
    in each epoch a forward and a backward pass, the latter worth two. Of a separate critic trunk: one forward pass to
    score, and the same in each epoch.
    """
    sampled_tokens = float(step.collected.sampled.lengths().sum())
    epochs = step.updated.metrics["train/epochs_done"]
    training_tokens = 3 * epochs * float(step.experience.lengths().sum())
    passes = 3 if step.collected.rescored else 2
    policy_flops = policy.flops_per_token * (passes * sampled_tokens + training_tokens)
    return policy_flops + policy.critic_flops_per_token * (sampled_tokens + training_tokens)
