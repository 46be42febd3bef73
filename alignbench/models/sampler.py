"""Prompts -> Rollouts: our own decoding loop, with the log-probability of each token taken as it is sampled."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor
from torch.nn import functional

from alignbench.core.batches import Prompts, Rollouts, Row
from alignbench.core.seeds import derive
from alignbench.models.logprobs import distribution
from alignbench.models.policy import CausalPolicy
from alignbench.models.truncation import Truncation

FULL = 7 / 8
"""Rows that have ended leave the batch once no larger share of it is still writing: to leave is to copy what stays."""
BLOCK = 128
"""Tokens of the vocabulary whose chances are summed before one of them is looked for."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Draws whole groups: each prompt is read once, its rollouts share what was read, finished rows leave the batch."""

    policy: CausalPolicy
    max_new_tokens: int
    """Where a response is cut."""
    temperature: float
    """0 takes the most likely token each time."""
    truncation: Truncation | None = None
    """Which tokens may be sampled; None lets all. Log-probabilities are of what was sampled from."""

    @torch.no_grad()
    def __call__(self, prompts: Prompts, group_size: int, seed: int) -> Rollouts:
        """`group_size` responses to each prompt; the draw of each depends on the seed, its prompt and its number."""
        n, text = len(prompts) * group_size, self.policy.text
        uniforms = self._uniforms(seed, prompts.rows, group_size).to(self.policy.device)
        responses, logprobs, lengths, ended = self._decode(prompts, group_size, uniforms)
        depth = max(int(lengths.max()), 1)
        mask = torch.arange(depth, device=lengths.device)[None] < lengths[:, None]
        responses = torch.where(mask, responses[:, :depth], text.pad)
        return Rollouts(
            prompts=prompts.tokens.repeat_interleave(group_size, 0).to(lengths.device),
            prompt_lengths=prompts.lengths.repeat_interleave(group_size).to(lengths.device),
            responses=responses,
            mask=mask,
            group=torch.arange(n, device=lengths.device) // group_size,
            logprobs=torch.where(mask, logprobs[:, :depth], 0.0),
            truncated=~ended,
            texts=tuple(text.decode(r[:k]) for r, k in zip(responses.tolist(), lengths.tolist(), strict=True)),
            rows=tuple(row for row in prompts.rows for _ in range(group_size)),
        )

    def _uniforms(self, seed: int, rows: Sequence[Row], group_size: int) -> Tensor:
        """Numbers from 0 to 1 [n, max_new_tokens]; a prompt that comes twice goes on numbering its responses."""
        numbers: defaultdict[object, count[int]] = defaultdict(count)
        addresses = [(row["id"], next(numbers[row["id"]])) for row in rows for _ in range(group_size)]
        return torch.stack([torch.rand(self.max_new_tokens, generator=derive(seed, "sample", *a)) for a in addresses])

    def _decode(self, prompts: Prompts, group_size: int, uniforms: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tokens and log-probabilities [n, max_new_tokens], lengths [n], and whether each row ended by itself [n].

        A row that has ended goes on for nothing until enough others have too; behind its end stands no meaning.
        """
        from alignbench.models.grouped import decoding  # here, because it imports transformers, and that takes long

        n, limit, device = len(uniforms), self.max_new_tokens, uniforms.device
        tokens = torch.full((n, limit), self.policy.text.pad, device=device)
        logprobs = torch.zeros(n, limit, device=device)
        stops = torch.tensor(self.policy.text.stops, device=device)
        rows, writing = torch.arange(n, device=device), torch.ones(n, dtype=torch.bool, device=device)
        reading = decoding(self.policy, prompts, group_size, limit)
        logits = reading.begin()
        for t in range(limit):
            token, logprob = self._draw(logits, uniforms[rows, t])
            tokens[rows, t], logprobs[rows, t] = token, logprob
            writing &= ~torch.isin(token, stops)
            left = int(writing.sum())
            if left == 0 or t + 1 == limit:
                break
            if left <= FULL * len(rows):
                going = writing.nonzero()[:, 0]
                rows, token, writing = rows[going], token[going], writing[going]
                reading.keep(going)
            logits = reading.step(token)
        is_end = torch.isin(tokens, stops)
        ended = is_end.any(1)
        return tokens, logprobs, torch.where(ended, is_end.int().argmax(1) + 1, limit), ended

    def _draw(self, logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """A token for each row, where the distribution function reaches its uniform number; and its log-probability."""
        logp = distribution(logits, self.temperature or 1.0, self.policy.text.never)
        logp = logp if self.truncation is None else self.truncation(logp)
        token = logp.argmax(-1) if self.temperature == 0 else reach(logp.exp(), uniform.double())
        return token, logp.gather(-1, token[:, None])[:, 0]


def reach(chances: Tensor, uniform: Tensor) -> Tensor:
    """Where the sum of the chances [n, v] first passes this share [n] of the whole, [n]; never at a chance of 0.

    Sums are in double precision; over a large vocabulary of blocks first and then within one, since that takes a small
    part of the time of summing token by token.
    """
    if chances.shape[1] <= 8 * BLOCK:
        return _passed(chances.double(), uniform)[0]
    blocks = functional.pad(chances, (0, -chances.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
    block, rest = _passed(blocks.sum(-1, dtype=torch.double), uniform)
    within, _ = _passed(blocks[torch.arange(len(blocks), device=blocks.device), block].double(), rest)
    return block * BLOCK + within


def _passed(masses: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """The first place at which the sum of the masses passes its share, and how much of the mass there is below it."""
    sums = masses.cumsum(-1)
    target = share.clamp(0, 1 - 1e-12)[:, None] * sums[:, -1:]  # rounding must not lead past the last chance there is
    place = torch.searchsorted(sums, target, right=True)
    return place[:, 0], ((target - sums.gather(1, place)) / masses.gather(1, place) + 1)[:, 0]
