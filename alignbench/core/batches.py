"""The batch types of a run, each adding fields to the one before: Prompts, Rollouts, Scored, Experience."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

# n = rollouts in the batch (prompts x group size)   t = maximum response tokens   p = maximum prompt tokens
Tokens = Int[Tensor, "n t"]
PerToken = Float[Tensor, "n t"]
PerRollout = Float[Tensor, " n"]
Group = Int[Tensor, " n"]
Mask = Bool[Tensor, "n t"]
Scalar = Float[Tensor, ""]
Row = Mapping[str, Any]
"""One row of a dataset: `id`, `prompt` and the columns that a scorer needs, such as `reference`."""

Wider = TypeVar("Wider", bound="Sequences")
Same = TypeVar("Same", bound="Sequences")


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """A batch of tokenized prompts.

    Example: two prompts of 3 and 2 tokens have tokens [[5, 6, 7], [0, 8, 9]] and lengths [3, 2].
    """

    tokens: Int[Tensor, "b p"]
    """Prompt tokens, left-padded."""
    lengths: Int[Tensor, " b"]
    """Number of prompt tokens in each row, without padding."""
    rows: tuple[Row, ...]
    """The dataset row of each prompt."""

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Tokenized prompts with their responses."""

    prompts: Int[Tensor, "n p"]
    """Prompt tokens, left-padded."""
    prompt_lengths: Int[Tensor, " n"]
    """Number of prompt tokens in each row, without padding."""
    responses: Tokens
    """Response tokens, right-padded."""
    mask: Mask
    """Loss mask: True on response tokens up to and including end-of-sequence, False on the padding after it.

    It also defines the attention mask and the length of each response."""

    def widen(self, into: type[Wider], **added: Any) -> Wider:
        """The same sequences as the next batch type, with its additional fields."""
        return into(**{f.name: getattr(self, f.name) for f in fields(self)}, **added)

    def __getitem__(self: Same, rows: Tensor) -> Same:
        """The same batch type with only the sequences at these indices."""
        picked: Any = {f.name: _take(getattr(self, f.name), rows) for f in fields(self)}
        return type(self)(**picked)

    def __len__(self) -> int:
        return len(self.mask)

    def to(self: Same, device: torch.device | str) -> Same:
        """The batch on another device."""
        values: Any = {f.name: getattr(self, f.name) for f in fields(self)}
        return type(self)(**{name: v.to(device) if isinstance(v, Tensor) else v for name, v in values.items()})

    def lengths(self) -> Int[Tensor, " n"]:
        """Number of prompt and response tokens of each row."""
        return self.prompt_lengths + self.mask.sum(1)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Preference pairs: a chosen and a rejected response to each prompt."""

    both: Sequences
    """All chosen responses, then the rejected ones in the same order: 2 m rows."""
    margin: Float[Tensor, " m"]
    """By how much the score of the chosen response should exceed that of the rejected one."""

    @property
    def mask(self) -> Mask:
        """Loss mask of the responses, [2 m, t]."""
        return self.both.mask

    def __getitem__(self, rows: Tensor) -> "Pairs":
        """Only the pairs at these indices."""
        rows = rows.to(self.margin.device)
        return Pairs(both=self.both[torch.cat([rows, rows + len(self)])], margin=self.margin[rows])

    def __len__(self) -> int:
        return len(self.margin)

    def to(self, device: torch.device | str) -> "Pairs":
        """The same pairs on another device."""
        return Pairs(both=self.both.to(device), margin=self.margin.to(device))

    def lengths(self) -> Int[Tensor, " m"]:
        """Number of prompt and response tokens of both sides of each pair."""
        return self.both.lengths().view(2, -1).sum(0)


@dataclass(frozen=True, kw_only=True)
class Rollouts(Sequences):
    """Responses sampled from the policy."""

    group: Group
    """Group number of each rollout; rollouts of one prompt have the same number."""
    logprobs: PerToken
    """log pi(a|s) as sampled: fp32, at the sampling temperature; 0 outside the mask."""
    truncated: Bool[Tensor, " n"]
    """True where the response reached the length limit without an end-of-sequence token."""
    texts: tuple[str, ...]
    """The responses as text, without special tokens."""
    rows: tuple[Row, ...]
    """The dataset row of each rollout."""


@dataclass(frozen=True, kw_only=True)
class Scored(Rollouts):
    """Rollouts with their scores and with log-probabilities of policy and reference."""

    scores: PerRollout
    """The total score of each rollout."""
    components: Mapping[str, PerRollout] = field(default_factory=dict)
    """The named parts of the scores."""
    old_logprobs: PerToken
    """log pi_old(a|s), of the policy before the update; 0 outside the mask."""
    ref_logprobs: PerToken
    """log pi_ref(a|s), of the frozen reference; 0 outside the mask."""
    values: PerToken | None = None
    """V(s) before each token; None without a critic."""
    kl_coef: float = 0.0
    """The KL coefficient of the step."""
    seed: int = 0
    """Seed of the random numbers that an algorithm draws in this step."""


@dataclass(frozen=True, kw_only=True)
class Experience(Scored):
    """Scored rollouts with advantages: what the update trains on."""

    advantages: PerToken
    """Advantage of each token; 0 outside the mask."""
    returns: PerToken | None = None
    """Regression target of the critic; None without one."""
    weights: PerToken | None = None
    """Weight of each token in the loss; set once per optimizer step."""
    number: Int[Tensor, " n"] | None = None
    """Index of each rollout in its group, from 0; None where there are no preference pairs."""
    preferred: Float[Tensor, "n g"] | None = None
    """Confidence that each rollout is preferred to the sibling with that index; 0 where the two are not a pair."""
    pair_share: float = 0.0
    """Weight of each preference pair in the loss; set with `weights`."""

    def has_weights(self) -> bool:
        """Whether any token has a weight above 0 in the loss."""
        return self.weights is not None and bool(self.weights.any())

    def total(self, losses: PerToken) -> Scalar:
        """The weighted sum of per-token losses [n, t]; the sums of microbatches add up to that of the minibatch."""
        assert self.weights is not None, "weights are set before the loss is computed"
        return (torch.where(self.mask, losses, 0.0) * self.weights).sum()


@dataclass(frozen=True, kw_only=True)
class Forward:
    """Outputs of a policy for the response tokens of a batch; with gradient in the update."""

    logprobs: PerToken
    """log pi(a|s), fp32, at the sampling temperature; 0 outside the mask."""
    entropy: PerToken
    """Entropy in nats of the distribution of each token; 0 outside the mask."""
    values: PerToken | None = None
    """V(s) before each token; None without a critic."""


@dataclass(frozen=True, kw_only=True)
class LossOutput:
    """The loss of a microbatch, and per-token quantities to log."""

    loss: Scalar
    tokens: Mapping[str, Tensor] = field(default_factory=dict)
    """Per-token quantities [n, t]; their mean over the mask is logged as `train/<name>`."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The output of a scorer: the total score that is trained on, and its named components."""

    total: PerRollout
    components: Mapping[str, PerRollout] = field(default_factory=dict)


def _take(value: Any, rows: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value[rows.to(value.device)]
    if isinstance(value, tuple):
        return tuple(value[i] for i in rows.tolist())
    if isinstance(value, Mapping):
        return {name: _take(part, rows) for name, part in value.items()}
    return value


def concatenate(parts: Sequence[Scored]) -> Scored:
    """The rollouts of several batches as one, padded to the longest, with groups renumbered from 0."""
    renumbered, groups = [], 0
    for part in parts:
        names, group_index = torch.unique(part.group, return_inverse=True)
        renumbered.append(replace(part, group=group_index + groups))
        groups += len(names)
    whole: Any = {f.name: _join([getattr(part, f.name) for part in renumbered], f.name) for f in fields(Scored)}
    return Scored(**whole)


def _join(values: list[Any], name: str) -> Any:
    first = values[0]
    if isinstance(first, Mapping):
        return {key: _join([value[key] for value in values], key) for key in first}
    if isinstance(first, tuple):
        return tuple(item for value in values for item in value)
    if not isinstance(first, Tensor):
        return first
    if first.dim() == 1:
        return torch.cat(values)
    width = max(value.shape[1] for value in values)
    left = name == "prompts"
    short = [width - value.shape[1] for value in values]
    return torch.cat([functional.pad(v, (k, 0) if left else (0, k)) for v, k in zip(values, short, strict=True)])


def sequences(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], pad: int) -> Sequences:
    """One padded batch from token lists of any length; prompts are left-padded, responses right-padded with `pad`."""
    width, depth = max(map(len, prompts)), max(max(map(len, responses)), 1)
    return Sequences(
        prompts=torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts]),
        prompt_lengths=torch.tensor([len(p) for p in prompts]),
        responses=torch.tensor([list(r) + [pad] * (depth - len(r)) for r in responses]),
        mask=torch.arange(depth)[None] < torch.tensor([len(r) for r in responses])[:, None],
    )
