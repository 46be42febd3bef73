"""The state of a run beside its weights: with it, a resumed run gives the same numbers as an uninterrupted one."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from alignbench.core.batches import Scored
from alignbench.core.errors import UserError
from alignbench.core.protocols import Algorithm, KLControlState, RunningStats


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Counters; every random number and every schedule is a function of them."""

    step: int = 0
    """Steps done."""
    prompts_seen: int = 0
    completions: int = 0
    tokens_written: int = 0
    """Response tokens, sampled or trained on."""
    optimizer_steps: int = 0
    flops: float = 0.0
    """Estimated from parameters and tokens: 2 per parameter and token in a forward pass, 6 in a training pass."""
    seconds: float = 0.0
    """Time in the loop, summed over all sessions of the run."""
    kl_control: KLControlState = KLControlState()
    """State of the KL controller."""
    score_stats: RunningStats | None = None
    """Running statistics of the score normalizer."""
    steps_without_signal: int = 0
    """Consecutive steps in which all rollouts of each group had equal scores."""
    kl: float = 0.0
    """KL to the reference in the last step, in nats per response."""

    @classmethod
    def at_start(cls, algorithm: Algorithm) -> "RunState":
        """The state in which a run of this algorithm starts."""
        normalizer = algorithm.normalizer
        return cls(kl_control=algorithm.kl.start, score_stats=normalizer.start if normalizer else None)

    def after(self, **changes: Any) -> "RunState":
        """The state one step later."""
        return replace(self, step=self.step + 1, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "RunState":
        """The state that `as_dict` saved. Raises UserError for a state with other fields."""
        known = {field.name for field in fields(cls)}
        if set(saved) != known:
            differing = ", ".join(sorted(known ^ set(saved)))
            raise UserError(
                f"the checkpoint was written by another version of alignbench: its state differs in {differing}. "
                "Remove the run's checkpoints folder to start again, or resume it with the version that wrote it"
            )
        stats = saved["score_stats"]
        parts = {
            "kl_control": KLControlState(**saved["kl_control"]),
            "score_stats": RunningStats(**stats) if stats else None,
        }
        return cls(**{**saved, **parts})


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """The result of one step: the state after it, its metrics by name, and its warnings."""

    state: RunState
    metrics: Mapping[str, float]
    warnings: tuple[str, ...] = ()
    scored: Scored | None = None
    """The rollouts of the step; None in supervised training."""
