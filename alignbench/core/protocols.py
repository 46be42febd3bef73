"""Interfaces of policies, samplers, scorers, datasets and algorithms, with defaults for the optional parts."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor
from torch.nn import Parameter

from alignbench.core.batches import (
    Experience,
    Forward,
    LossOutput,
    PerRollout,
    PerToken,
    Prompts,
    Rollouts,
    Row,
    Scored,
    Scores,
    Sequences,
)
from alignbench.core.errors import UserError
from alignbench.core.field_types import Positive, Size


@dataclass(frozen=True, kw_only=True)
class KLControlState:
    """State of a KL controller; the RunState carries it from step to step."""

    coef: float = 0.0
    """Coefficient of the KL penalty."""
    learning_rate_scale: float = 1.0
    """Factor on the scheduled learning rate."""
    stop: bool = False
    """Whether the run ends after this step."""


@dataclass(frozen=True, kw_only=True)
class KLStats:
    """KL of the policy to its reference, measured on the rollouts of one step, in nats."""

    per_sequence: float
    """Mean over rollouts of the sum over their tokens."""
    per_token: float
    """Mean over tokens."""
    episodes: int
    """Number of rollouts it was measured on."""
    progress: float
    """Fraction of the run's steps that are done, from 0 to 1."""


@runtime_checkable
class KLController(Protocol):
    """Adapts the KL penalty to the measured KL. Stateless: the RunState carries its state."""

    @property
    def start(self) -> KLControlState:
        """The state at step 0."""
        ...

    def next(self, state: KLControlState, stats: KLStats) -> KLControlState:
        """The state after a step that ran under `state` and measured `stats`."""
        ...


class NoKL:
    """No KL penalty: a controller whose coefficient is always 0."""

    start = KLControlState()

    def next(self, state: KLControlState, stats: KLStats) -> KLControlState:
        """The same state."""
        return state


@dataclass(frozen=True, kw_only=True)
class RunningStats:
    """Running mean and standard deviation of the scores; the RunState carries them."""

    mean: float
    std: float


@runtime_checkable
class Normalizer(Protocol):
    """Rescales scores before training on them. Stateless: the RunState carries its running statistics."""

    @property
    def start(self) -> RunningStats | None:
        """The statistics at step 0; None takes those of the first batch."""
        ...

    def __call__(self, scores: PerRollout, stats: RunningStats | None) -> tuple[PerRollout, RunningStats]:
        """The rescaled scores [n], and the statistics after this batch."""
        ...


@runtime_checkable
class Selection(Protocol):
    """Dynamic sampling: selects the groups of a step; the engine samples more prompts until enough are selected."""

    @property
    def draws(self) -> int:
        """Maximum number of prompt batches sampled in one step."""
        ...

    def __call__(self, batch: Scored) -> Tensor:
        """True for each rollout [n] of a selected group; groups are selected as a whole."""
        ...


@dataclass(frozen=True, kw_only=True)
class Critic:
    """The value function: its trunk, its head and its learning rate."""

    trunk: Literal["shared", "separate"] = "shared"
    """The policy's own trunk, or a separate one: a copy of all weights, or an adapter where the policy trains one."""
    start: Literal["zero", "reward_model"] = "zero"
    """Initial values: 0, or the score that the reward model gives the text so far."""
    hidden: Size = 128
    """Units of the head's hidden layer; 0 is a linear head."""
    learning_rate: Positive = 1e-3
    """Learning rate of the critic; the head starts from zero while the trunk is already trained."""

    def __post_init__(self) -> None:
        if self.start == "reward_model" and (self.trunk != "separate" or self.hidden):
            raise UserError(
                "start=reward_model takes over the reward model's trunk and its linear head: set "
                "algo.critic.trunk=separate and algo.critic.hidden=0 too"
            )


@runtime_checkable
class Algorithm(Protocol):
    """An alignment method. Pure and stateless: everything it needs arrives in the arguments of its methods.

    An algorithm is a frozen dataclass that inherits from this class and defines `credit`, `token_weights` and `loss`.
    The attributes below have defaults; a field of the same name makes one a key of the algorithm's YAML.
    """

    group_size: int = 1
    """Rollouts sampled for each prompt."""
    kl: KLController = NoKL()
    """Sets the KL coefficient from step to step."""
    normalizer: Normalizer | None = None
    """Rescales the scores; None trains on the raw scores."""
    critic: Critic | None = None
    """The value function; None trains without one."""
    dynamic_sampling: Selection | None = None
    """Selects the groups to train on; None trains on all of them."""
    whole_groups: bool = False
    """Whether the loss compares rollouts of one group, which then stay in one microbatch."""
    target_kl: float | None = None
    """Skip the remaining minibatches of a step once the mean KL per token to the sampling policy exceeds this."""

    @abstractmethod
    def credit(self, batch: Scored) -> Experience:
        """Assign advantages [n, t]. Called once for each batch of rollouts, without gradient."""

    @abstractmethod
    def token_weights(self, batch: Experience) -> PerToken:
        """The weight [n, t] of each token in the loss, computed over the whole minibatch of one optimizer step.

        The loss is then the same for any split into microbatches. A minibatch whose weights are all 0 is skipped,
        without an optimizer step.
        """

    @abstractmethod
    def loss(self, now: Forward, batch: Experience) -> LossOutput:
        """The loss of one microbatch, with gradient through `now`; `batch.weights` holds the token weights."""

    def with_weights(self, batch: Experience) -> Experience:
        """The minibatch with its token weights; methods that learn from preference pairs set `pair_share` too."""
        return replace(batch, weights=self.token_weights(batch))


@runtime_checkable
class Learner(Protocol):
    """A model that an optimizer can train."""

    flops_per_token: int
    """Floating-point operations of one token's forward pass: about 2 per parameter."""

    def trainable(self) -> Iterable[tuple[str, Parameter]]:
        """Name and value of each trainable parameter."""
        ...


@runtime_checkable
class Policy(Learner, Protocol):
    """A causal language model with its frozen reference, and a critic where the algorithm needs one."""

    @property
    def critic_flops_per_token(self) -> int:
        """The same for a separate critic trunk; 0 without one."""
        ...

    @property
    def shares_prompts(self) -> bool:
        """Whether rollouts of one prompt are cheaper in one call, because the prompt is computed once."""
        ...

    def __call__(self, batch: Sequences) -> Forward:
        """Log-probabilities, entropies and values of the response tokens [n, t] of a batch, on its device."""
        ...

    def reference(self) -> AbstractContextManager[Any]:
        """Context in which calling the policy gives the outputs of the frozen reference."""
        ...


@runtime_checkable
class Sampler(Protocol):
    """Samples `group_size` responses to each prompt; rollouts of one prompt are contiguous."""

    def __call__(self, prompts: Prompts, group_size: int, seed: int) -> Rollouts: ...


@runtime_checkable
class Scorer(Protocol):
    """Scores rollouts: the reward."""

    def __call__(self, rollouts: Rollouts) -> Scores:
        """The score [n] of each rollout. Raises UserError when a row lacks a column that it needs."""
        ...

    def check(self, rows: Sequence[Row]) -> None:
        """Raise UserError, before anything is trained, when a row cannot be scored."""
        ...

    def content_hash(self) -> str:
        """The sha256 of its settings and source code: equal hashes mean the same scoring rules."""
        ...


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Statistics of a reward model's scores on held-out answers."""

    temperature: float = 1.0
    """sigmoid((score_a - score_b) / temperature) estimates how often answer a is preferred."""
    mean: float = 0.0
    """Mean of score / temperature."""
    std: float = 1.0
    """Standard deviation of score / temperature."""


@runtime_checkable
class ScoreModel(Protocol):
    """A reward model: one score for a whole response."""

    @property
    def calibration(self) -> Calibration:
        """Scale and temperature of its scores."""
        ...

    def __call__(self, batch: Sequences) -> Tensor:
        """The score of each row, [n], fp32."""
        ...

    def weights_checksum(self) -> str:
        """The sha256 of its weights."""
        ...


@runtime_checkable
class LearnedScorer(Protocol):
    """A reward that may need a trained reward model before it can score."""

    @property
    def needs_model(self) -> bool:
        """Whether it needs a reward model; a weighted sum does if one of its parts does."""
        ...

    @property
    def path(self) -> str | None:
        """A folder with the reward model; None where the study trains it."""
        ...

    def scale(self, calibration: Calibration) -> Calibration:
        """The scale applied to a model's scores, (score / temperature - mean) / std, given its calibration."""
        ...

    def with_model(self, model: ScoreModel) -> Scorer:
        """The scorer that uses this reward model."""
        ...


def learned(reward: Any) -> LearnedScorer | None:
    """The reward if it needs a reward model, else None."""
    return reward if isinstance(reward, LearnedScorer) and reward.needs_model else None


@runtime_checkable
class PromptStream(Protocol):
    """An endless stream of prompts; its position is the number of prompts seen."""

    def after(self, prompts_seen: int) -> Iterator[Prompts]:
        """The batches that follow after that many prompts."""
        ...


@runtime_checkable
class Dataset(Protocol):
    """Rows of a task, each with `id`, `prompt` and what a scorer needs; splits never share a row.

    A dataset is a dataclass that inherits from this class and defines `demonstrations` and `prompts`. The other methods
    have defaults.
    """

    @abstractmethod
    def demonstrations(self) -> Sequence[Row]:
        """Rows with `id`, `prompt` and `completion`, for supervised fine-tuning (SFT)."""

    @abstractmethod
    def prompts(self, split: str) -> Sequence[Row]:
        """Rows with `id` and `prompt`, for generation; `split` is train, validation or test.

        A row that has a `completion` too can be used to measure perplexity. Raises UserError for an unknown split.
        """

    def comparisons(self, split: str) -> Sequence[Row]:
        """Preference pairs: rows with `id`, `prompt`, `chosen`, `rejected` and optionally `margin`; splits as above.

        Default: raises UserError, because the dataset has no preference pairs.
        """
        raise UserError(
            f"{type(self).__name__} has no preference pairs to train a reward model on; choose a dataset with chosen "
            "and rejected answers, or another reward"
        )

    def quality(self, row: Row, answer: str) -> float | None:
        """The true quality of an answer to a row's prompt; None where it is unknown, which is the default."""
        return None

    def notes(self) -> Mapping[str, int]:
        """Row counts for the plan and the manifest, such as {"dropped without an answer": 3}; empty by default."""
        return {}
