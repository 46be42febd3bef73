"""Prompts -> Rollouts: our own decoding loop, with the log-probability of each token taken as it is sampled."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from alignbench.core.batches import Prompts, Rollouts, Row
from alignbench.core.seeds import derive
from alignbench.models.logprobs import distribution
from alignbench.models.policy import CausalPolicy


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Draws whole groups: each prompt is read once, its rollouts share what was read, finished rows leave the batch."""

    policy: CausalPolicy
    max_new_tokens: int
    """Where a response is cut."""
    temperature: float
    """0 takes the most likely token each time."""

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
        """Tokens and log-probabilities [n, max_new_tokens], lengths [n], and whether each row ended by itself [n]."""
        from transformers import DynamicCache  # here, because its import takes longer than telling what is wrong

        n, device, model = len(uniforms), uniforms.device, self.policy.model
        width, cache = prompts.tokens.shape[1], DynamicCache(config=self.policy.inner.config)
        seen = (torch.arange(width)[None] >= (width - prompts.lengths)[:, None]).long().to(device)
        logits = model(
            input_ids=prompts.tokens.to(device), attention_mask=seen, position_ids=(seen.cumsum(1) - 1).clamp(min=0),
            past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
        cache.batch_repeat_interleave(group_size)
        logits, seen = logits.repeat_interleave(group_size, 0), seen.repeat_interleave(group_size, 0)

        tokens = torch.full((n, self.max_new_tokens), self.policy.text.pad, device=device)
        logprobs = torch.zeros(n, self.max_new_tokens, device=device)
        lengths = torch.zeros(n, dtype=torch.long, device=device)
        ended, alive = torch.zeros(n, dtype=torch.bool, device=device), torch.arange(n, device=device)
        stops = torch.tensor(self.policy.text.stops, device=device)
        for t in range(self.max_new_tokens):
            token, logprob = self._draw(logits, uniforms[alive, t])
            tokens[alive, t], logprobs[alive, t] = token, logprob
            lengths[alive] += 1
            over = torch.isin(token, stops)
            ended[alive[over]] = True
            if over.all() or t + 1 == self.max_new_tokens:
                break
            if over.any():
                keep = (~over).nonzero()[:, 0]
                alive, token, seen = alive[keep], token[keep], seen[keep]
                cache.batch_select_indices(keep)
            seen = torch.cat([seen, seen.new_ones(len(seen), 1)], dim=1)
            logits = model(
                input_ids=token[:, None], attention_mask=seen, position_ids=seen.sum(1, keepdim=True) - 1,
                past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
        return tokens, logprobs, lengths, ended

    def _draw(self, logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """A token for each row, where the distribution function reaches its uniform number; and its log-probability."""
        logp = distribution(logits, self.temperature or 1.0, self.policy.text.never)
        if self.temperature == 0:
            token = logp.argmax(-1)
        else:
            reached = logp.double().exp().cumsum(-1)
            token = torch.searchsorted(reached, (uniform.double() * reached[:, -1])[:, None], right=True)[:, 0]
            token = token.clamp(max=logits.shape[-1] - 1)
        return token, logp.gather(-1, token[:, None])[:, 0]
