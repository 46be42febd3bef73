"""Policy + scorer + algorithm -> a better policy: the reinforcement learning phase of a run."""

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
from alignbench.stages.weight_selection import Best
from alignbench.store.run_logger import has_records

CONDITIONS, RECORDS = "conditions", "records"
"""Where a checkpoint says under which conditions it was made, and what was written down until then."""


@dataclass(frozen=True, kw_only=True)
class RL:
    """The budget and the update, the same for every method of a study."""

    steps: Size = 40
    """Rollout, score, update: this many times; 0 measures what the policy starts from, and nothing else."""
    rollouts_per_step: Count = 128
    """Answers drawn in a step; prompts = rollouts / group size, so that methods spend the same."""
    max_prompt_tokens: Count = 1024
    """Prompts may not be longer; they are never cut."""
    too_long: Literal["error", "drop"] = "error"
    """Whether a longer prompt ends the run, or is left out and counted."""
    max_new_tokens: Count = 32
    """Where an answer is cut."""
    temperature: Positive = 1.0
    """Of the sampling, and of the log-probabilities that are trained on."""
    logits_filter: LogitsFilter | None = None
    """Which tokens may be sampled, such as {top_p: 0.95}; needs importance_cap, since all tokens are trained on."""
    epochs: Count = 1
    """Passes over the rollouts of a step."""
    minibatches: Count = 2
    """Optimizer steps in a pass; groups are never split."""
    missing_eos_penalty: NonNegative = 0.0
    """Taken off the score of an answer that was cut at the limit; on the scale that is trained on."""
    importance_cap: Positive | None = None
    """Weigh each token by its probability to the update over that to the sampler, at most this: for samplers with
    other arithmetic. Pairs are compared whoever wrote them. Null: sampler and update must agree."""
    old_logprobs: Literal["auto", "sampled", "rescored"] = "auto"
    """What the ratio starts from: log-probabilities as sampled, or read again as the update reads them, which is always
    done at step 0, with a critic and with importance_cap. auto: as sampled where the two must agree to 0.001 anyway."""
    optimizer: AdamW = field(default_factory=AdamW)
    """How weights are changed."""
    checkpoint_every: Size = 20
    """Steps between checkpoints; 0 keeps none."""

    def __post_init__(self) -> None:
        if self.logits_filter is not None and self.importance_cap is None:
            raise UserError(
                "rl.logits_filter samples from fewer tokens than are trained on, so each has to be weighed by "
                "the chance that was left: set rl.importance_cap=1.0, or rl.logits_filter=null"
            )

    def prompts_per_step(self, algorithm: Algorithm) -> int:
        """Raises UserError where groups do not fit into a step or a minibatch."""
        groups, rest = divmod(self.rollouts_per_step, algorithm.group_size)
        if rest:
            raise UserError(
                f"rl.rollouts_per_step={self.rollouts_per_step} is not a multiple of "
                f"algo.group_size={algorithm.group_size}: groups must be whole"
            )
        if groups % self.minibatches:
            raise UserError(
                f"{groups} groups (rl.rollouts_per_step / algo.group_size) cannot be shared among "
                f"rl.minibatches={self.minibatches}: choose a divisor of {groups}"
            )
        return groups

    @property
    def optimizer_steps(self) -> int:
        """How often the weights are changed, at most."""
        return self.steps * self.epochs * self.minibatches

    def most_rollouts(self, algorithm: Algorithm) -> int:
        """Answers that all steps may draw: dynamic sampling may draw those of a step several times."""
        again = algorithm.dynamic_sampling.draws if algorithm.dynamic_sampling else 1
        return self.steps * self.rollouts_per_step * again

    def engine(
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
        """The engine of this run, its optimizer new."""
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

    def vllm(self, policy: CausalPolicy, cache_gib: float) -> VLLMSampler:
        """What may take the place of our own sampler in the engine."""
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
        """Whether rollouts are read once more before the update."""
        if algorithm.critic is not None or self.importance_cap is not None or self.old_logprobs == "rescored":
            return True
        return self.old_logprobs == "auto" and not invariants.is_strict

    def run(self, engine: RLLoop, prompts: PromptStream, state: RunState) -> Iterator[StepReport]:
        """The steps that are left after `state`; fewer when the KL controller ends the run."""
        if self.is_over(state):
            return
        for report in engine.run(prompts, state):
            yield report
            if self.is_over(report.state):
                return

    def is_over(self, state: RunState) -> bool:
        """Whether the last step was done, or the run was ended before it."""
        return state.step >= self.steps or state.kl_control.stop


def snapshot(state: RunState, policy: CausalPolicy, adamw: Any, best: Best) -> dict[str, Any]:
    """All that a run needs to go on exactly."""
    return {"state": state.as_dict(), "policy": policy.state(), "optimizer": adamw.state_dict(), "best": best.state()}


def is_recorded(saved: Mapping[str, Any], run_dir: Path, now: Mapping[str, Any]) -> bool:
    """Whether all is there that was written down until a snapshot. Raises UserError when it is of other conditions."""
    refuse_other_conditions(saved, now, run_dir / "checkpoints")
    return has_records(run_dir, saved.get(RECORDS))


def refuse_other_conditions(saved: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Raise UserError when a snapshot was taken under other conditions than those of now, naming what differs."""
    before = saved.get(CONDITIONS, {})
    differ = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if differ:
        told = ", ".join(f"{name} (was {before.get(name)!r:.40}, now {now.get(name)!r:.40})" for name in differ[:8])
        raise UserError(
            f"the checkpoint in {folder} was made under other conditions: {told}. Undo the change, or "
            "remove that folder to begin this run again"
        )


def restore(saved: dict[str, Any], policy: CausalPolicy, adamw: Any, best: Best) -> RunState:
    """Put a snapshot back."""
    policy.load(saved["policy"])
    adamw.load_state_dict(saved["optimizer"])
    best.load(saved["best"])
    return RunState.from_dict(saved["state"])
