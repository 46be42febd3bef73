"""Incremental decoding with the KV cache of transformers: prefill all prompts, then one token per row and step."""

from typing import Protocol

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

from alignbench.core.batches import Prompts
from alignbench.models.policy import CausalPolicy


class Decoder(Protocol):
    """The model state of a batch during decoding."""

    def prefill(self) -> Tensor:
        """Read the prompts; returns the logits of the first token of each row, [n, v]."""
        ...

    def step(self, tokens: Tensor) -> Tensor:
        """Read one token per row, [m]; returns the logits of the next, [m, v]."""
        ...

    def select(self, rows: Tensor) -> None:
        """Keep only these rows of the batch, in this order."""
        ...


class StandardDecoder:
    """Decoding with the cache that transformers has for the model; every row caches its own prompt."""

    def __init__(self, policy: CausalPolicy, prompts: Prompts, group_size: int) -> None:
        self.policy, self.prompts, self.group_size = policy, prompts, group_size
        self.cache = DynamicCache(config=policy.inner.config)
        self.attention_mask = prompt_attention_mask(prompts).long().to(policy.device)

    def prefill(self) -> Tensor:
        logits = prefill(self.policy, self.prompts, self.cache)
        self.cache.batch_repeat_interleave(self.group_size)
        self.attention_mask = self.attention_mask.repeat_interleave(self.group_size, 0)
        return logits.repeat_interleave(self.group_size, 0)

    def step(self, tokens: Tensor) -> Tensor:
        self.attention_mask = torch.cat([self.attention_mask, self.attention_mask.new_ones(len(tokens), 1)], dim=1)
        logits: Tensor = self.policy.model(
            input_ids=tokens[:, None],
            attention_mask=self.attention_mask,
            position_ids=self.attention_mask.sum(1, keepdim=True) - 1,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1]

    def select(self, rows: Tensor) -> None:
        self.attention_mask = self.attention_mask[rows]
        self.cache.batch_select_indices(rows)


def prompt_attention_mask(prompts: Prompts) -> Tensor:
    """True for the tokens of a prompt, False for padding, [b, p]."""
    width = prompts.tokens.shape[1]
    return torch.arange(width)[None] >= (width - prompts.lengths.cpu())[:, None]


def prefill(policy: CausalPolicy, prompts: Prompts, cache: Cache) -> Tensor:
    """Read the prompts into the cache; returns the logits of the token after each, [b, v]."""
    attention_mask = prompt_attention_mask(prompts).long().to(policy.device)
    logits: Tensor = policy.model(
        input_ids=prompts.tokens.to(policy.device),
        attention_mask=attention_mask,
        past_key_values=cache,
        use_cache=True,
        position_ids=(attention_mask.cumsum(1) - 1).clamp(min=0),
        logits_to_keep=1,
    ).logits
    return logits[:, -1]
