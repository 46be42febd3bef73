"""The batches that flow through a run, each stage wider than the last: Prompts, Rollouts, Scored, Experience."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

# n = rollouts in the batch (prompts x group)   t = response tokens   p = prompt tokens, the longest of the batch
Tokens = Int[Tensor, "n t"]
PerToken = Float[Tensor, "n t"]
PerRollout = Float[Tensor, " n"]
Group = Int[Tensor, " n"]
Mask = Bool[Tensor, "n t"]
Scalar = Float[Tensor, ""]
Row = Mapping[str, Any]
"""One example of a dataset: `id`, `prompt` and whatever else a scorer needs, such as `reference`."""

Wider = TypeVar("Wider", bound="Sequences")
Same = TypeVar("Same", bound="Sequences")


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """A few prompts of a dataset, tokenised once.

    Example: two prompts of 3 and 2 tokens have tokens [[5, 6, 7], [0, 8, 9]] and lengths [3, 2].
    """

    tokens: Int[Tensor, "b p"]
    """Prompt tokens, left-padded."""
    lengths: Int[Tensor, " b"]
    """How many tokens of each row are the prompt's."""
    rows: tuple[Row, ...]
    """The dataset rows they came from, in the same order."""

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Prompts and what follows them, as tokens."""

    prompts: Int[Tensor, "n p"]
    """Prompt tokens, left-padded."""
    prompt_lengths: Int[Tensor, " n"]
    """How many tokens of each row of `prompts` are real."""
    responses: Tokens
    """Response tokens, right-padded."""
    mask: Mask
    """True on every response token that counts, its end-of-sequence token included."""

    def widen(self, into: type[Wider], **added: Any) -> Wider:
        """The same sequences with what the next stage learned about them."""
        return into(**{f.name: getattr(self, f.name) for f in fields(self)}, **added)

    def __getitem__(self: Same, rows: Tensor) -> Same:
        """The same stage, only the sequences numbered in `rows`."""
        picked: Any = {f.name: _take(getattr(self, f.name), rows) for f in fields(self)}
        return type(self)(**picked)

    def __len__(self) -> int:
        return len(self.mask)

    def to(self: Same, device: torch.device | str) -> Same:
        """The same stage on another device."""
        here: Any = {f.name: getattr(self, f.name) for f in fields(self)}
        return type(self)(**{name: v.to(device) if isinstance(v, Tensor) else v for name, v in here.items()})

    def lengths(self) -> Int[Tensor, " n"]:
        """Prompt and response tokens of each row together."""
        return self.prompt_lengths + self.mask.sum(1)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Two responses to each of a few prompts, one of them preferred; they never part."""

    both: Sequences
    """The chosen response of each pair, then the rejected ones in the same order: 2 m rows."""
    margin: Float[Tensor, " m"]
    """How far the chosen response should be ahead; 0 where being ahead is enough."""

    @property
    def mask(self) -> Mask:
        """True on every response token that counts, of both responses of each pair."""
        return self.both.mask

    def __getitem__(self, rows: Tensor) -> "Pairs":
        """Only the pairs numbered in `rows`."""
        rows = rows.to(self.margin.device)
        return Pairs(both=self.both[torch.cat([rows, rows + len(self)])], margin=self.margin[rows])

    def __len__(self) -> int:
        return len(self.margin)

    def to(self, device: torch.device | str) -> "Pairs":
        """The same pairs on another device."""
        return Pairs(both=self.both.to(device), margin=self.margin.to(device))

    def lengths(self) -> Int[Tensor, " m"]:
        """Prompt and response tokens of both sides of each pair together."""
        return self.both.lengths().view(2, -1).sum(0)


@dataclass(frozen=True, kw_only=True)
class Rollouts(Sequences):
    """What the policy wrote: responses to prompts, sampled under the policy of this step."""

    group: Group
    """Which prompt of the batch each rollout answers; rollouts of one prompt share a number."""
    logprobs: PerToken
    """log pi(a|s) as sampled: fp32, at the sampling temperature; 0 outside the mask."""
    truncated: Bool[Tensor, " n"]
    """True where the response was cut at the length limit and has no end-of-sequence token."""
    texts: tuple[str, ...]
    """The responses as text, without special tokens."""
    rows: tuple[Row, ...]
    """The dataset row each rollout answers."""


@dataclass(frozen=True, kw_only=True)
class Scored(Rollouts):
    """What the scorer said of each rollout, and what each model thought of each token."""

    scores: PerRollout
    """The score of each rollout, all components together."""
    components: Mapping[str, PerRollout] = field(default_factory=dict)
    """The named parts of the scores."""
    old_logprobs: PerToken
    """log pi_old(a|s) by the policy that sampled, from the training forward; 0 outside the mask."""
    ref_logprobs: PerToken
    """log pi_ref(a|s) by the frozen reference; 0 outside the mask."""
    values: PerToken | None = None
    """V(s) before each token; None where the algorithm keeps no critic."""
    kl_coef: float = 0.0
    """The KL coefficient in force when these rollouts were drawn."""
    seed: int = 0
    """The address of whatever an algorithm leaves to chance at this step."""


@dataclass(frozen=True, kw_only=True)
class Experience(Scored):
    """What the algorithm made of it: how much each token deserves."""

    advantages: PerToken
    """How much better than expected each token was; 0 outside the mask."""
    returns: PerToken | None = None
    """What the critic should have predicted; None without a critic."""
    weights: PerToken | None = None
    """The share of each token in the loss; the algorithm sets it once for each optimizer step."""
    number: Int[Tensor, " n"] | None = None
    """Which rollout of its group each one is, from 0; None where rollouts are not compared in pairs."""
    preferred: Float[Tensor, "n g"] | None = None
    """How surely each rollout is preferred to the sibling of that number; 0 where the two are no pair."""
    pair_share: float = 0.0
    """The share of each pair in the loss, set with `weights`."""

    def has_weights(self) -> bool:
        """Whether any token has a weight above 0 in the loss."""
        return self.weights is not None and bool(self.weights.any())

    def total(self, losses: PerToken) -> Scalar:
        """One loss from one loss per token: the sum by `weights`, so that any split into microbatches adds up."""
        assert self.weights is not None, "shares are set before a loss is asked for"
        return (torch.where(self.mask, losses, 0.0) * self.weights).sum()


@dataclass(frozen=True, kw_only=True)
class Forward:
    """What a policy thinks of the tokens of a batch; with gradient when it is being trained."""

    logprobs: PerToken
    """log pi(a|s), fp32, at the sampling temperature; 0 outside the mask."""
    entropy: PerToken
    """Entropy in nats of the distribution each token was drawn from; 0 outside the mask."""
    values: PerToken | None = None
    """V(s) before each token; None without a critic."""


@dataclass(frozen=True, kw_only=True)
class LossOutput:
    """What an algorithm wants descended, and what it wants written down."""

    loss: Scalar
    tokens: Mapping[str, Tensor] = field(default_factory=dict)
    """Per-token quantities [n, t] to log; the engine writes their mean over the mask as `train/<name>`."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """A scorer's answer: the total that is trained on, and its named parts."""

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
    """Token lists of any length as one padded batch."""
    width, depth = max(map(len, prompts)), max(max(map(len, responses)), 1)
    return Sequences(
        prompts=torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts]),
        prompt_lengths=torch.tensor([len(p) for p in prompts]),
        responses=torch.tensor([list(r) + [pad] * (depth - len(r)) for r in responses]),
        mask=torch.arange(depth)[None] < torch.tensor([len(r) for r in responses])[:, None],
    )
