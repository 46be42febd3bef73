"""All that a run must remember to go on as if it had never stopped, beside its weights."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from alignbench.core.batches import Scored
from alignbench.core.protocols import Algorithm, KLControlState, RunningStats


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Counts of what was done; every source of randomness and every schedule is a function of these."""

    step: int = 0
    prompts_seen: int = 0
    completions: int = 0
    tokens_written: int = 0
    optimizer_steps: int = 0
    flops: float = 0.0
    """Estimated from parameters and tokens: 2 for each in a forward pass, 6 in a training pass."""
    seconds: float = 0.0
    """Time in the loop, over all the sessions of a run."""
    steering: KLControlState = KLControlState()
    """What the KL controller has set."""
    moments: RunningStats | None = None
    """What the normalizer of the scores remembers."""
    steps_without_signal: int = 0
    """How many steps in a row gave every rollout the same score."""
    kl: float = 0.0
    """To the reference, in nats a response, as the last step measured it."""

    @classmethod
    def at_start(cls, algorithm: Algorithm) -> "RunState":
        """What a run of this algorithm begins with."""
        normalizer = algorithm.normalizer
        return cls(steering=algorithm.kl.start, moments=normalizer.start if normalizer else None)

    def after(self, **changes: Any) -> "RunState":
        """The state one step later."""
        return replace(self, step=self.step + 1, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, to save."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "RunState":
        """The state that `as_dict` saved."""
        moments = saved["moments"]
        parts = {
            "steering": KLControlState(**saved["steering"]),
            "moments": RunningStats(**moments) if moments else None,
        }
        return cls(**{**saved, **parts})


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """What a step did: the state after it, its metrics by name, and what somebody should know."""

    state: RunState
    metrics: Mapping[str, float]
    warnings: tuple[str, ...] = ()
    scored: Scored | None = None
    """The rollouts of the step, where there were any."""
