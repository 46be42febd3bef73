"""The reinforcement learning (RL) stage: its settings, its loop, and the snapshots that checkpoints hold."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alignbench.core.errors import UserError
from alignbench.core.field_types import Count, NonNegative, Positive, Size
from alignbench.core.protocols import Algorithm, PromptStream, Scorer
from alignbench.engine.checks import Invariants, weights_checksum
from alignbench.engine.optimizer import AdamW, Optimizer
from alignbench.engine.rl_loop import RLLoop
from alignbench.engine.run_state import RunState, StepReport
from alignbench.engine.update import Update
from alignbench.generation.logits_filters import LogitsFilter
from alignbench.generation.sampler import Sampler
from alignbench.generation.vllm_sampler import VLLMSampler
from alignbench.models.policy import CausalPolicy
from alignbench.stages.weight_selection import BestWeights
from alignbench.store.run_logger import has_records

CONDITIONS, RECORDS = "conditions", "records"
"""Keys of a checkpoint: the conditions it was made under, and the log records that exist up to it."""


@dataclass(frozen=True, kw_only=True)
class RL:
    """The budget, sampling and update of RL: the same for every method of a study."""

    steps: Size = 40
    """Number of steps (rollout, score, update); 0 only evaluates the initial policy."""
    rollouts_per_step: Count = 128
    """Completions sampled in each step; prompts per step = rollouts_per_step / group_size, so that budgets match."""
    max_prompt_tokens: Count = 1024
    """Maximum prompt length in tokens; prompts are never truncated."""
    too_long: Literal["error", "drop"] = "error"
    """A longer prompt is an error, or is dropped and counted."""
    max_new_tokens: Count = 32
    """Maximum completion length in tokens."""
    temperature: Positive = 1.0
    """Temperature of sampling and of the log-probabilities in the loss."""
    logits_filter: LogitsFilter | None = None
    """Filters the tokens that can be sampled, such as {top_p: 0.95}; needs importance_cap."""
    epochs: Count = 1
    """Passes over the rollouts of each step."""
    minibatches: Count = 2
    """Optimizer steps in each pass; groups are never split."""
    missing_eos_penalty: NonNegative = 0.0
    """Subtracted from the score of a truncated completion, after score normalization."""
    importance_cap: Positive | None = None
    """Upper bound on the importance weight pi_old / pi_sampler of each token, for samplers whose probabilities differ
    from the update's; the loss of preference pairs is not weighted. Null: sampler and update must agree."""
    old_logprobs: Literal["auto", "sampled", "rescored"] = "auto"
    """Source of log pi_old: the sampler, or a forward pass of the policy, which always runs at step 0, with a critic,
    and with importance_cap. auto: the sampler's where invariants require the two to agree within 0.001."""
    optimizer: AdamW = field(default_factory=AdamW)
    """Optimizer of policy and critic."""
    checkpoint_every: Size = 20
    """Steps between checkpoints; 0 saves none."""

    def __post_init__(self) -> None:
        if self.logits_filter is not None and self.importance_cap is None:
            raise UserError(
                "rl.logits_filter changes the distribution that tokens are sampled from, so the loss needs importance "
                "weights: set rl.importance_cap=1.0, or rl.logits_filter=null"
            )

    def prompts_per_step(self, algorithm: Algorithm) -> int:
        """Number of prompts (groups) in a step. Raises UserError unless groups divide a step and a minibatch evenly."""
        groups, rest = divmod(self.rollouts_per_step, algorithm.group_size)
        if rest:
            raise UserError(
                f"rl.rollouts_per_step={self.rollouts_per_step} is not a multiple of "
                f"algo.group_size={algorithm.group_size}: groups cannot be split"
            )
        if groups % self.minibatches:
            raise UserError(
                f"{groups} groups (rl.rollouts_per_step / algo.group_size) cannot be divided evenly into "
                f"rl.minibatches={self.minibatches}: choose a divisor of {groups}"
            )
        return groups

    @property
    def optimizer_steps(self) -> int:
        """Maximum number of optimizer steps of a run."""
        return self.steps * self.epochs * self.minibatches

    def max_rollouts(self, algorithm: Algorithm) -> int:
        """Maximum number of completions of a run; dynamic sampling may sample several batches in a step."""
        draws = algorithm.dynamic_sampling.draws if algorithm.dynamic_sampling else 1
        return self.steps * self.rollouts_per_step * draws

    def build_loop(
        self,
        policy: CausalPolicy,
        scorer: Scorer,
        algorithm: Algorithm,
        seed: int,
        microbatch_size: int,
        invariants: Invariants,
        tokens_per_microbatch: int | None = None,
        rollouts_at_once: int | None = None,
    ) -> RLLoop:
        """The RL loop of a run, with a new optimizer."""
        groups = [([p for _, p in policy.policy_parameters()], self.optimizer.learning_rate)]
        if algorithm.critic is not None:
            groups.append(([p for _, p in policy.critic_parameters()], algorithm.critic.learning_rate))
        apart = algorithm.critic is not None and algorithm.critic.trunk == "separate"
        update = Update(
            policy=policy,
            algorithm=algorithm,
            optimizer=Optimizer(groups, self.optimizer, self.optimizer_steps, apart=apart),
            epochs=self.epochs,
            minibatches=self.minibatches,
            microbatch_size=microbatch_size,
            invariants=invariants,
            importance_cap=self.importance_cap,
            tokens_per_microbatch=tokens_per_microbatch,
        )
        sampler = Sampler(
            policy=policy,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            logits_filter=self.logits_filter,
            rollouts_at_once=rollouts_at_once,
        )
        return RLLoop(
            policy=policy,
            sampler=sampler,
            scorer=scorer,
            algorithm=algorithm,
            update=update,
            seed=seed,
            steps=self.steps,
            missing_eos_penalty=self.missing_eos_penalty,
            rescored=self._rescored(algorithm, invariants),
        )

    def build_vllm_sampler(self, policy: CausalPolicy, cache_gib: float) -> VLLMSampler:
        """A vLLM sampler, which can replace the built-in sampler of the loop."""
        return VLLMSampler(
            policy=policy,
            max_prompt_tokens=self.max_prompt_tokens,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            logits_filter=self.logits_filter,
            cache_gib=cache_gib,
            weights_checksum=weights_checksum,
        )

    def _rescored(self, algorithm: Algorithm, invariants: Invariants) -> bool:
        """Whether a forward pass of the policy computes the old log-probabilities."""
        if algorithm.critic is not None or self.importance_cap is not None or self.old_logprobs == "rescored":
            return True
        return self.old_logprobs == "auto" and not invariants.is_strict

    def run(self, loop: RLLoop, prompts: PromptStream, state: RunState) -> Iterator[StepReport]:
        """The remaining steps after `state`; fewer if the KL controller stops the run."""
        if self.is_over(state):
            return
        for report in loop.run(prompts, state):
            yield report
            if self.is_over(report.state):
                return

    def is_over(self, state: RunState) -> bool:
        """Whether all steps are done, or the KL controller stopped the run."""
        return state.step >= self.steps or state.kl_control.stop


def snapshot(state: RunState, policy: CausalPolicy, adamw: Any, best: BestWeights) -> dict[str, Any]:
    """Everything that a resumed run needs to give the same numbers as an uninterrupted one."""
    return {"state": state.as_dict(), "policy": policy.state(), "optimizer": adamw.state_dict(), "best": best.state()}


def is_recorded(saved: Mapping[str, Any], run_dir: Path, now: Mapping[str, Any]) -> bool:
    """Whether the run folder holds all records of a snapshot. Raises UserError if its conditions differ from `now`."""
    check_conditions(saved, now, run_dir / "checkpoints")
    return has_records(run_dir, saved.get(RECORDS))


def check_conditions(saved: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Raise UserError, naming the differing keys, if a snapshot was made under other conditions than `now`."""
    before = saved.get(CONDITIONS, {})
    differ = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if differ:
        listed = ", ".join(f"{name} (was {before.get(name)!r:.40}, now {now.get(name)!r:.40})" for name in differ[:8])
        raise UserError(
            f"the checkpoint in {folder} was made under other conditions: {listed}. Undo the change, or "
            "remove that folder to start this run again"
        )


def restore(saved: dict[str, Any], policy: CausalPolicy, adamw: Any, best: BestWeights) -> RunState:
    """Load a snapshot. Raises UserError if another version of alignbench wrote it."""
    state = RunState.from_dict(saved["state"])
    policy.load(saved["policy"])
    adamw.load_state_dict(saved["optimizer"])
    best.load(saved["best"])
    return state
