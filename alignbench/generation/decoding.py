"""Reading while writing: all prompts at once, then a token at a time of each answer."""

from typing import Protocol

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from alignbench.core.batches import Prompts
from alignbench.models.policy import CausalPolicy


class Decoder(Protocol):
    """The rows of a batch while they are written."""

    def prefill(self) -> Tensor:
        """Read the prompts; the logits of each row's first token, [n, v]."""
        ...

    def step(self, tokens: Tensor) -> Tensor:
        """Read one token of each row that is left, [m]; the logits of the next, [m, v]."""
        ...

    def select(self, rows: Tensor) -> None:
        """Only these go on, of the rows that are left; in the same order."""
        ...


class StandardDecoder:
    """By the cache that transformers has for the model, whatever its layers are: every row remembers its own prompt."""

    def __init__(self, policy: CausalPolicy, prompts: Prompts, group_size: int) -> None:
        self.policy, self.prompts, self.group_size = policy, prompts, group_size
        self.cache = DynamicCache(config=policy.inner.config)
        self.seen = prompt_attention_mask(prompts).long().to(policy.device)

    def prefill(self) -> Tensor:
        logits = prefill(self.policy, self.prompts, self.cache)
        self.cache.batch_repeat_interleave(self.group_size)
        self.seen = self.seen.repeat_interleave(self.group_size, 0)
        return logits.repeat_interleave(self.group_size, 0)

    def step(self, tokens: Tensor) -> Tensor:
        self.seen = torch.cat([self.seen, self.seen.new_ones(len(tokens), 1)], dim=1)
        return self.policy.model(
            input_ids=tokens[:, None],
            attention_mask=self.seen,
            position_ids=self.seen.sum(1, keepdim=True) - 1,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]

    def select(self, rows: Tensor) -> None:
        self.seen = self.seen[rows]
        self.cache.batch_select_indices(rows)


def prompt_attention_mask(prompts: Prompts) -> Tensor:
    """True where a token is the prompt's, False where it fills up, [b, p]."""
    width = prompts.tokens.shape[1]
    return torch.arange(width)[None] >= (width - prompts.lengths.cpu())[:, None]


def prefill(policy: CausalPolicy, prompts: Prompts, cache: Cache) -> Tensor:
    """Read the prompts into the cache; the logits that follow each, [b, v]."""
    seen = prompt_attention_mask(prompts).long().to(policy.device)
    return policy.model(
        input_ids=prompts.tokens.to(policy.device),
        attention_mask=seen,
        past_key_values=cache,
        use_cache=True,
        position_ids=(seen.cumsum(1) - 1).clamp(min=0),
        logits_to_keep=1,
    ).logits[:, -1]
