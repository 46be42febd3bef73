"""The one loop of every method: rollout, score, update.

It yields after each step and touches no disk, no log and no screen: whoever runs it (a phase, or a test) decides what
to write down, what to save and when to stop.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import perf_counter

from alignbench.core.batches import Scored
from alignbench.core.protocols import Algorithm, KLStats, Policy, PromptStream, Sampler, Scorer
from alignbench.core.seeds import address
from alignbench.engine import step_metrics
from alignbench.engine.collect_rollouts import RolloutCollector
from alignbench.engine.reward_shaping import shape
from alignbench.engine.run_state import RunState, StepReport
from alignbench.engine.update import Update


@dataclass(frozen=True, kw_only=True)
class RLLoop:
    """Everything a run needs to learn."""

    policy: Policy
    sampler: Sampler
    scorer: Scorer
    algorithm: Algorithm
    update: Update
    seed: int
    steps: int
    """How many the run has: schedules are shares of it."""
    missing_eos_penalty: float = 0.0
    """Taken off the score of a rollout that was cut at the length limit."""
    rescored: bool = True
    """Whether old log-probabilities are from a pass of their own at every step, and not the sampler's after step 0."""

    def run(self, prompts: PromptStream, state: RunState) -> Iterator[StepReport]:
        """Steps without end, starting after `state`."""
        checks, stream = self.update.invariants, prompts.after(state.prompts_seen)
        pending = checks.check_trainable(self.update.optimizer.groups)
        draw = RolloutCollector(
            policy=self.policy,
            sampler=self.sampler,
            scorer=self.scorer,
            algorithm=self.algorithm,
            microbatch_size=self.update.microbatch_size,
            seed=self.seed,
            rescored=self.rescored,
            tokens_per_microbatch=self.update.tokens_per_microbatch,
        )
        while True:
            start = perf_counter()
            drawn = draw(stream, state.step, state.steering.coef)
            scored, judged = drawn.everything, perf_counter()
            shown = step_metrics.rollouts(scored)
            warnings, pending = pending + checks.check_reference(scored, state.step), []
            if self.update.importance_cap is None:  # With a cap the gap is weighed instead of refused.
                warnings += checks.check_first_pass(shown["rollout/sampler_gap"], "the sampler and the scoring pass")
            else:
                warnings += checks.check_importance(shown["rollout/effective_share"])
            warnings += checks.check_finite("a reward", float(scored.scores.sum()))
            warnings += checks.check_drift(shown["rollout/kl_sequence"], before=state.kl)
            shaped, moments = shape(drawn.kept, self.algorithm.normalizer, state.moments, self.missing_eos_penalty)
            shaped = replace(shaped, seed=address(self.seed, "credit", state.step))
            experience = self.algorithm.credit(shaped)
            used, again = state.steering, draw.reads_again(state.step)
            updated = self.update(
                experience,
                step=state.step,
                optimizer_steps=state.optimizer_steps,
                seed=self.seed,
                learning_rate_scale=used.learning_rate_scale,
            )
            end = perf_counter()

            silent = state.steps_without_signal + 1 if step_metrics.all_equal(shaped) else 0
            warnings += checks.check_signal(silent)
            drift = KLStats(
                per_sequence=shown["rollout/kl_sequence"],
                per_token=shown["rollout/kl_token"],
                episodes=len(scored),
                progress=(state.step + 1) / self.steps,
            )
            state = state.after(
                prompts_seen=state.prompts_seen + drawn.prompts,
                completions=state.completions + len(scored),
                tokens_written=state.tokens_written + int(scored.mask.sum()),
                optimizer_steps=state.optimizer_steps + updated.optimizer_steps,
                flops=state.flops + self._flops(scored, experience, updated.metrics["train/epochs_done"], again),
                seconds=state.seconds + end - start,
                steering=self.algorithm.kl.next(used, drift),
                moments=moments,
                steps_without_signal=silent,
                kl=shown["rollout/kl_sequence"],
            )
            metrics = {
                **shown,
                **step_metrics.rewards(scored),
                **step_metrics.groups(shaped),
                **step_metrics.critic(experience),
                **step_metrics.pairs(experience),
                **step_metrics.shaped(shaped),
                **updated.metrics,
                "train/kl_coef": used.coef,
                "group_stats/kept_fraction": len(shaped) / len(scored),
                "cost/rollout_seconds": drawn.rollout_seconds,
                "cost/score_seconds": drawn.score_seconds,
                "cost/update_seconds": end - judged,
            }
            if not again:  # Then the update's first pass was the first to read what was sampled.
                metrics["rollout/sampler_gap"] = updated.metrics["train/first_ratio_gap"]
            yield StepReport(state=state, metrics=metrics, warnings=(*warnings, *updated.warnings), scored=scored)

    def _flops(self, drawn: Scored, trained: Scored, epochs: float, rescored: bool) -> float:
        """One forward pass to sample, two to score, and for each epoch one forward and one backward, worth two.

        Where old log-probabilities are the sampler's, one is enough to score. A critic with a trunk of its own reads
        once to score and three times in each epoch.
        """
        own, critic = self.policy.flops_per_token, self.policy.critic_flops_per_token
        read, learned = float(drawn.lengths().sum()), 3 * epochs * float(trained.lengths().sum())
        return own * ((3 if rescored else 2) * read + learned) + critic * (read + learned)
