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
from alignbench.generation.continuous_batching import ActiveBatch, PromptQueue
from alignbench.generation.logits_filters import LogitsFilter
from alignbench.kernels.logprobs import vocabulary_logprobs
from alignbench.kernels.onednn import prepacked_weights
from alignbench.models.policy import CausalPolicy

BLOCK = 128
"""Tokens of the vocabulary whose chances are summed before one of them is looked for."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Draws whole groups: each prompt is read once, its rollouts share what was read; what has ended leaves the batch,
    and where not all are written at once, others come in for it."""

    policy: CausalPolicy
    max_new_tokens: int
    """Where a response is cut."""
    temperature: float
    """0 takes the most likely token each time."""
    logits_filter: LogitsFilter | None = None
    """Which tokens may be sampled; None lets all. Log-probabilities are of what was sampled from."""
    rollouts_at_once: int | None = None
    """The most that are written at a time; None is all of them. Beyond rounding it changes nothing."""

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

        Behind the end of a row stands no meaning.
        """
        n, limit, device = len(uniforms), self.max_new_tokens, uniforms.device
        tokens = torch.full((n, limit), self.policy.text.pad, device=device)
        logprobs = torch.zeros(n, limit, device=device)
        waiting = PromptQueue(prompts, group_size, self.rollouts_at_once)
        with prepacked_weights(self.policy.model):
            while waiting:
                self._write(waiting, uniforms, tokens, logprobs)
        is_end = torch.isin(tokens, torch.tensor(self.policy.text.stops, device=device))
        ended = is_end.any(1)
        return tokens, logprobs, torch.where(ended, is_end.int().argmax(1) + 1, limit), ended

    @torch.inference_mode()
    def _write(self, waiting: PromptQueue, uniforms: Tensor, tokens: Tensor, logprobs: Tensor) -> None:
        """A batch until all its rows have ended; where the model's cache allows it, others come in for those."""
        from alignbench.generation.shared_prefix_decoding import (  # here: it imports transformers, and that takes long
            SharedPrefixDecoder,
            make_decoder,
        )

        stops, longest = torch.tensor(self.policy.text.stops, device=uniforms.device), waiting.prompts.tokens.shape[1]
        prompts, rows = waiting.pop(0)
        batch = ActiveBatch(rows.to(uniforms.device), self.max_new_tokens)
        reading = make_decoder(self.policy, prompts, waiting.group_size, longest + self.max_new_tokens)
        logits = reading.prefill()
        while True:
            at = batch.rows, batch.generated
            token, logprobs[at] = self._draw(logits, uniforms[at])
            tokens[at] = token
            batch.advance(torch.isin(token, stops))
            if not batch.unfinished_count:
                return
            if batch.should_compact():
                going = batch.compact(refill=bool(waiting))
                token = token[going]
                reading.select(going)
            logits = reading.step(token)
            if isinstance(reading, SharedPrefixDecoder) and waiting.capacity(len(batch)):
                prompts, rows = waiting.pop(len(batch))
                logits = torch.cat([logits, reading.add_prompts(prompts)])
                batch.add(rows)

    def _draw(self, logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """A token for each row, where the distribution function reaches its uniform number; and its log-probability."""
        logp = vocabulary_logprobs(logits, self.temperature or 1.0, self.policy.text.suppressed)
        logp = logp if self.logits_filter is None else self.logits_filter(logp)
        token = logp.argmax(-1) if self.temperature == 0 else inverse_cdf_sample(logp.exp(), uniform.double())
        return token, logp.gather(-1, token[:, None])[:, 0]


def inverse_cdf_sample(chances: Tensor, uniform: Tensor) -> Tensor:
    """Where the sum of the chances [n, v] first passes this share [n] of the whole, [n]; never at a chance of 0.

    Sums are in double precision; over a large vocabulary of blocks first and then within one, since that takes a small
    part of the time of summing token by token.
    """
    if chances.shape[1] <= 8 * BLOCK:
        return _search_cdf(chances.double(), uniform)[0]
    blocks = functional.pad(chances, (0, -chances.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
    block, rest = _search_cdf(blocks.sum(-1, dtype=torch.double), uniform)
    within, _ = _search_cdf(blocks[torch.arange(len(blocks), device=blocks.device), block].double(), rest)
    return block * BLOCK + within


def _search_cdf(masses: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """The first place at which the sum of the masses passes its share, and how much of the mass there is below it."""
    sums = masses.cumsum(-1)
    target = share.clamp(0, 1 - 1e-12)[:, None] * sums[:, -1:]  # rounding must not lead past the last chance there is
    place = torch.searchsorted(sums, target, right=True)
    return place[:, 0], ((target - sums.gather(1, place)) / masses.gather(1, place) + 1)[:, 0]
