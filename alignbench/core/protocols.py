"""What a policy, a sampler, a scorer, a dataset and an algorithm must do, so that none needs to know another."""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor
from torch.nn import Parameter

from alignbench.core.batches import (
    Experience,
    Forward,
    LossOutput,
    PerRollout,
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
    """What a KL controller holds in its hands; the RunState remembers it from step to step."""

    coef: float = 0.0
    """The coefficient of the KL penalty."""
    learning_rate_scale: float = 1.0
    """The share of the scheduled learning rate that is used."""
    stop: bool = False
    """Whether the run ends here."""


@dataclass(frozen=True, kw_only=True)
class KLStats:
    """How far the policy was from its reference in a step, in nats."""

    per_sequence: float
    """Mean over rollouts of the sum over their tokens."""
    per_token: float
    """Mean over tokens."""
    episodes: int
    """Rollouts it was measured on."""
    progress: float
    """The share of the run's steps that is done, from 0 to 1."""


@runtime_checkable
class KLController(Protocol):
    """Steers by the KL to the reference. Stateless: what it sets is remembered by the RunState."""

    @property
    def start(self) -> KLControlState:
        """What is in force at step 0."""
        ...

    def next(self, now: KLControlState, drift: KLStats) -> KLControlState:
        """What is in force after a step that drifted this far under `now`."""
        ...


@dataclass(frozen=True, kw_only=True)
class RunningStats:
    """Running mean and standard deviation of the scores so far; the RunState remembers them."""

    mean: float
    std: float


@runtime_checkable
class Normalizer(Protocol):
    """Brings scores to a known scale before they are trained on. Stateless, like a KL controller."""

    @property
    def start(self) -> RunningStats | None:
        """What is in force at step 0; None takes the first batch's."""
        ...

    def __call__(self, scores: PerRollout, moments: RunningStats | None) -> tuple[PerRollout, RunningStats]:
        """The scores [n] on that scale, and the moments after this batch."""
        ...


@runtime_checkable
class Selection(Protocol):
    """Which groups a step is trained on; the engine draws again until there are as many as it wanted."""

    @property
    def draws(self) -> int:
        """The most times that a step's prompts are drawn."""
        ...

    def __call__(self, batch: Scored) -> Tensor:
        """True for each rollout [n] that is kept; whole groups."""
        ...


@dataclass(frozen=True, kw_only=True)
class Critic:
    """The value function: a head, and what the head sits on."""

    trunk: Literal["shared", "separate"] = "shared"
    """The policy's own trunk, or one beside it: a copy of all weights, or an adapter where the policy trains one."""
    start: Literal["zero", "reward_model"] = "zero"
    """Every value at first: 0, or what the reward model would give the text so far."""
    hidden: Size = 128
    """Units of its hidden layer; 0 is a linear head."""
    learning_rate: Positive = 1e-3
    """Its own learning rate: it starts from zero while the trunk starts trained."""

    def __post_init__(self) -> None:
        if self.start == "reward_model" and (self.trunk != "separate" or self.hidden):
            raise UserError(
                "start=reward_model takes over the reward model's trunk and its linear head: set "
                "algo.critic.trunk=separate and algo.critic.hidden=0 too"
            )


@runtime_checkable
class Algorithm(Protocol):
    """Pure and stateless: everything an algorithm needs arrives in its arguments."""

    @property
    def group_size(self) -> int:
        """Rollouts drawn for each prompt."""
        ...

    @property
    def kl(self) -> KLController:
        """Sets the KL coefficient from step to step."""
        ...

    @property
    def normalizer(self) -> Normalizer | None:
        """Brings scores to a known scale; None trains on them as they are."""
        ...

    @property
    def critic(self) -> Critic | None:
        """The value head it needs; None without one."""
        ...

    @property
    def dynamic_sampling(self) -> Selection | None:
        """Which groups it wants; None trains on all that were drawn."""
        ...

    @property
    def whole_groups(self) -> bool:
        """Whether its loss compares siblings, so that they must stand in one microbatch."""
        ...

    @property
    def target_kl(self) -> float | None:
        """Leave the rest of a step's minibatches once the mean KL per token to the sampling policy is above this."""
        ...

    def credit(self, batch: Scored) -> Experience:
        """How much each token deserves. Once for each batch of rollouts, without gradient."""
        ...

    def apportion(self, batch: Experience) -> Experience:
        """The whole minibatch of one optimizer step, the share of each token (and pair) in its loss set.

        A minibatch in which nothing has a share is left out, without an optimizer step.
        """
        ...

    def loss(self, now: Forward, batch: Experience) -> LossOutput:
        """What to descend. Once for each microbatch, with gradient through `now`."""
        ...


@runtime_checkable
class Learner(Protocol):
    """Whatever an optimizer can change."""

    flops_per_token: int
    """Floating-point operations of one token's forward pass: about 2 for each parameter."""

    def trainable(self) -> Iterable[tuple[str, Parameter]]:
        """Name and value of everything the optimizer may change."""
        ...


@runtime_checkable
class Policy(Learner, Protocol):
    """A causal language model, with a critic when asked for, and its frozen reference."""

    critic_flops_per_token: int
    """The same of a trunk that is the critic's own; 0 without one."""
    shares_prompts: bool
    """Whether sequences that answer one prompt cost less together than each in a call of its own."""

    def __call__(self, batch: Sequences) -> Forward:
        """Log-probabilities, entropies and values of the response tokens of a batch, on its device."""
        ...

    def reference(self) -> AbstractContextManager[Any]:
        """While it is open, calling the policy answers as the frozen reference does."""
        ...


@runtime_checkable
class Sampler(Protocol):
    """Writes `group_size` responses to each prompt, rollouts of one prompt standing together."""

    def __call__(self, prompts: Prompts, group_size: int, seed: int) -> Rollouts: ...


@runtime_checkable
class Scorer(Protocol):
    """Says how good each rollout is."""

    def __call__(self, rollouts: Rollouts) -> Scores:
        """The score of each rollout. Raises UserError when a row lacks what it needs."""
        ...

    def check(self, rows: Sequence[Row]) -> None:
        """Raise UserError, before anything is trained, when a row could not be scored."""
        ...

    def content_hash(self) -> str:
        """The sha256 of what it is made of: two runs with the same one were scored by the same rules."""
        ...


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a reward model learned of its own scores on held-out answers."""

    temperature: float = 1.0
    """sigmoid of the difference of two scores, divided by this, is how often the better one is preferred."""
    mean: float = 0.0
    """Of score / temperature over held-out answers."""
    std: float = 1.0
    """The standard deviation of the same."""


@runtime_checkable
class ScoreModel(Protocol):
    """A model that gives a whole response one number."""

    calibration: Calibration

    def __call__(self, batch: Sequences) -> Tensor:
        """The score of each row, [n], fp32."""
        ...

    def content_hash(self) -> str:
        """The sha256 by which its weights are known."""
        ...


@runtime_checkable
class LearnedScorer(Protocol):
    """A reward that can need the reward model of its study before it can score."""

    @property
    def needs_model(self) -> bool:
        """Whether this one does; a sum of rewards does where one of its parts does."""
        ...

    @property
    def path(self) -> str | None:
        """A folder with the model; None where the study trains it."""
        ...

    def scale(self, known: Calibration) -> Calibration:
        """How it brings a model's scores, of which this is known, to its own: (score / temperature - mean) / std."""
        ...

    def with_model(self, model: ScoreModel) -> Scorer:
        """The scorer that asks this model."""
        ...


def learned(reward: Any) -> LearnedScorer | None:
    """A reward as one that needs a model; None when it scores as it is."""
    return reward if isinstance(reward, LearnedScorer) and reward.needs_model else None


@runtime_checkable
class PromptStream(Protocol):
    """Prompts without end, addressed by how many were seen."""

    def after(self, prompts_seen: int) -> Iterator[Prompts]: ...


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
