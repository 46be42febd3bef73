"""The sampler: our own decoding loop, which also returns the log-probability of each sampled token."""

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
"""Vocabulary tokens per block of the two-level inverse-CDF search."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Samples groups of responses with continuous batching; each prompt is read once for its group."""

    policy: CausalPolicy
    max_new_tokens: int
    """Maximum response length in tokens; longer responses are truncated."""
    temperature: float
    """Divides the logits; 0 is greedy decoding."""
    logits_filter: LogitsFilter | None = None
    """Restricts which tokens are sampled; None is all. Log-probabilities are those of the filtered distribution."""
    rollouts_at_once: int | None = None
    """Most responses generated concurrently; None is all. Results change by floating-point error only."""

    @torch.no_grad()
    def __call__(self, prompts: Prompts, group_size: int, seed: int) -> Rollouts:
        """Sample `group_size` responses to each prompt; each depends on the seed, its prompt and its number."""
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
        """Uniform numbers [n, max_new_tokens]; the numbering of responses continues if a prompt occurs again."""
        numbers: defaultdict[object, count[int]] = defaultdict(count)
        addresses = [(row["id"], next(numbers[row["id"]])) for row in rows for _ in range(group_size)]
        return torch.stack([torch.rand(self.max_new_tokens, generator=derive(seed, "sample", *a)) for a in addresses])

    def _decode(self, prompts: Prompts, group_size: int, uniforms: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Tokens and log-probabilities [n, max_new_tokens], lengths [n], and whether each row has a stop token [n].

        Tokens and log-probabilities after the stop token are undefined.
        """
        n, limit, device = len(uniforms), self.max_new_tokens, uniforms.device
        tokens = torch.full((n, limit), self.policy.text.pad, device=device)
        logprobs = torch.zeros(n, limit, device=device)
        queue = PromptQueue(prompts, group_size, self.rollouts_at_once)
        with prepacked_weights(self.policy.model):
            while queue:
                self._decode_batch(queue, uniforms, tokens, logprobs)
        is_end = torch.isin(tokens, torch.tensor(self.policy.text.stops, device=device))
        ended = is_end.any(1)
        return tokens, logprobs, torch.where(ended, is_end.int().argmax(1) + 1, limit), ended

    @torch.inference_mode()
    def _decode_batch(self, queue: PromptQueue, uniforms: Tensor, tokens: Tensor, logprobs: Tensor) -> None:
        """Decode until the batch is empty; with a shared-prefix cache, waiting prompts join it in the meantime.

        Writes `tokens` and `logprobs`, both [n, max_new_tokens].
        """
        # Imported here, since it imports transformers, which takes seconds.
        from alignbench.generation.shared_prefix_decoding import SharedPrefixDecoder, make_decoder

        stops, longest = torch.tensor(self.policy.text.stops, device=uniforms.device), queue.prompts.tokens.shape[1]
        prompts, rows = queue.pop(0)
        batch = ActiveBatch(rows.to(uniforms.device), self.max_new_tokens)
        decoder = make_decoder(self.policy, prompts, queue.group_size, longest + self.max_new_tokens)
        logits = decoder.prefill()
        while True:
            at = batch.rows, batch.generated
            token, logprobs[at] = self._sample_token(logits, uniforms[at])
            tokens[at] = token
            batch.advance(torch.isin(token, stops))
            if not batch.unfinished_count:
                return
            if batch.should_compact():
                kept = batch.compact(refill=bool(queue))
                token = token[kept]
                decoder.select(kept)
            logits = decoder.step(token)
            if isinstance(decoder, SharedPrefixDecoder) and queue.capacity(len(batch)):
                prompts, rows = queue.pop(len(batch))
                logits = torch.cat([logits, decoder.add_prompts(prompts)])
                batch.add(rows)

    def _sample_token(self, logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Sample a token of each row from logits [m, v] by its uniform number [m]; and its log-probability [m]."""
        logp = vocabulary_logprobs(logits, self.temperature or 1.0, self.policy.text.suppressed)
        logp = logp if self.logits_filter is None else self.logits_filter(logp)
        token = logp.argmax(-1) if self.temperature == 0 else inverse_cdf_sample(logp.exp(), uniform.double())
        return token, logp.gather(-1, token[:, None])[:, 0]


def inverse_cdf_sample(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The first index at which the cumulative sum of probabilities [n, v] exceeds uniform [n] times their total, [n].

    Never an index of probability 0. Sums are in float64; for a large vocabulary the search is over blocks first and
    then within one block, which takes a small part of the time of one sum over all tokens.
    """
    if probabilities.shape[1] <= 8 * BLOCK:
        return _search_cdf(probabilities.double(), uniform)[0]
    blocks = functional.pad(probabilities, (0, -probabilities.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))
    block, rest = _search_cdf(blocks.sum(-1, dtype=torch.double), uniform)
    within, _ = _search_cdf(blocks[torch.arange(len(blocks), device=blocks.device), block].double(), rest)
    return block * BLOCK + within


def _search_cdf(masses: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """The first index at which the cumulative mass exceeds `share` of the total, and the share of that index's mass."""
    sums = masses.cumsum(-1)
    target = share.clamp(0, 1 - 1e-12)[:, None] * sums[:, -1:]  # floating-point error must not exceed the last mass
    place = torch.searchsorted(sums, target, right=True)
    return place[:, 0], ((target - sums.gather(1, place)) / masses.gather(1, place) + 1)[:, 0]
