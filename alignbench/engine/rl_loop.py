"""The reinforcement learning loop of every method: rollout, score, update.

It yields a report after each step and touches no disk, log or screen: the caller (a stage, or a test) decides what to
log, what to save and when to stop.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import perf_counter

from alignbench.core.batches import Experience, Scored
from alignbench.core.protocols import Algorithm, Policy, PromptStream, RunningStats, Sampler, Scorer
from alignbench.core.seeds import address
from alignbench.engine.collect_rollouts import RolloutCollector
from alignbench.engine.reward_shaping import shape_rewards
from alignbench.engine.run_state import RunState, StepReport
from alignbench.engine.step_observers import Step, check_rollouts, count_flops, measure_step
from alignbench.engine.update import Update, Updated


@dataclass(frozen=True, kw_only=True)
class RLLoop:
    """A policy, a sampler, a scorer, an algorithm and an update, run step by step."""

    policy: Policy
    sampler: Sampler
    scorer: Scorer
    algorithm: Algorithm
    update: Update
    seed: int
    steps: int
    """Number of steps in the run, from which KL schedules compute their progress."""
    missing_eos_penalty: float = 0.0
    """Subtracted from the score of a truncated rollout."""
    rescored: bool = True
    """Whether the policy computes the old log-probabilities in a pass of its own at every step, or only at step 0."""

    def run(self, prompts: PromptStream, state: RunState) -> Iterator[StepReport]:
        """Endless steps, starting after `state`. Raises InvariantBroken when a check fails."""
        checks, collect, stream = self.update.invariants, self._collector(), prompts.after(state.prompts_seen)
        warnings = checks.check_trainable(self.update.optimizer.groups)
        while True:
            start = perf_counter()
            collected = collect(stream, state.step, state.kl_control.coef)  # rollout and score
            warnings += check_rollouts(collected, state, checks, self.update.importance_cap)
            experience, score_stats = self._assign_credit(collected.selected, state)
            updated = self._update(experience, state)
            seconds = perf_counter() - start
            step = Step(state=state, collected=collected, experience=experience, updated=updated, seconds=seconds)
            state = self._next_state(step, score_stats)
            warnings += [*checks.check_signal(state.steps_without_signal), *updated.warnings]
            yield StepReport(
                state=state, metrics=measure_step(step), warnings=tuple(warnings), scored=collected.sampled
            )
            warnings = []

    def _collector(self) -> RolloutCollector:
        return RolloutCollector(
            policy=self.policy,
            sampler=self.sampler,
            scorer=self.scorer,
            algorithm=self.algorithm,
            microbatch_size=self.update.microbatch_size,
            tokens_per_microbatch=self.update.tokens_per_microbatch,
            seed=self.seed,
            rescored=self.rescored,
        )

    def _assign_credit(self, selected: Scored, state: RunState) -> tuple[Experience, RunningStats | None]:
        """The selected rollouts with advantages, and the statistics of the score normalizer after them."""
        shaped, score_stats = shape_rewards(
            selected, self.algorithm.normalizer, state.score_stats, self.missing_eos_penalty
        )
        shaped = replace(shaped, seed=address(self.seed, "credit", state.step))
        return self.algorithm.credit(shaped), score_stats

    def _update(self, experience: Experience, state: RunState) -> Updated:
        return self.update(
            experience,
            step=state.step,
            optimizer_steps=state.optimizer_steps,
            seed=self.seed,
            learning_rate_scale=state.kl_control.learning_rate_scale,
        )

    def _next_state(self, step: Step, score_stats: RunningStats | None) -> RunState:
        state, collected = step.state, step.collected
        return state.after(
            prompts_seen=state.prompts_seen + collected.prompts,
            completions=state.completions + len(collected.sampled),
            tokens_written=state.tokens_written + int(collected.sampled.mask.sum()),
            optimizer_steps=state.optimizer_steps + step.updated.optimizer_steps,
            flops=state.flops + count_flops(self.policy, step),
            seconds=state.seconds + step.seconds,
            kl_control=self.algorithm.kl.next(state.kl_control, step.kl_stats(self.steps)),
            score_stats=score_stats,
            steps_without_signal=step.steps_without_signal,
            kl=collected.metrics["rollout/kl_sequence"],
        )
