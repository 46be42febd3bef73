"""Prompts -> Rollouts, written by vLLM: the twin of our own decoding loop, with arithmetic of its own."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from alignbench.core.batches import Prompts, Rollouts, Row
from alignbench.core.errors import UserError
from alignbench.core.seeds import address
from alignbench.generation.logits_filters import LogitsFilter
from alignbench.generation.vllm_engine import VLLMEngine, WeightsChecksum
from alignbench.models.policy import CausalPolicy

FORBIDDEN = -100.0
"""What is added to the logit of a token that is never sampled: the least that vLLM adds, a chance of exp(-100)."""


class VLLMSampler:
    """The same contract as our own sampler; nothing of vLLM is imported before it first writes.

    Each rollout is a request with a seed of its own, from which vLLM makes a generator for this request alone: so what
    else stands in the batch changes no draw. It can change what is drawn from, by rounding: kernels may sum in another
    order when a batch has another size. Only VLLM_BATCH_INVARIANT=1, on GPUs that vLLM names, promises the same bits.
    """

    def __init__(
        self,
        *,
        policy: CausalPolicy,
        max_prompt_tokens: int,
        max_new_tokens: int,
        temperature: float,
        logits_filter: LogitsFilter | None,
        cache_gib: float,
        weights_checksum: WeightsChecksum,
    ) -> None:
        """`weights_checksum` tells whether the policy's weights are still those that vLLM was given."""
        if logits_filter is not None and logits_filter.top_p < 1 and logits_filter.min_p:
            raise UserError(
                "hardware.sampler=vllm takes rl.logits_filter.min_p before top_p, our own loop after it: set "
                "one of the two, or hardware.sampler=own"
            )
        self.policy, self.max_new_tokens, self.temperature = policy, max_new_tokens, temperature
        self.logits_filter = logits_filter or LogitsFilter()
        self._longest, self._cache_gib = max_prompt_tokens + max_new_tokens, cache_gib
        self._weights_checksum = weights_checksum
        self._engine: VLLMEngine | None = None

    @torch.no_grad()
    def __call__(self, prompts: Prompts, group_size: int, seed: int) -> Rollouts:
        """`group_size` responses to each prompt; the draw of each depends on the seed, its prompt and its number."""
        if self._engine is None:
            self._engine = VLLMEngine(
                self.policy, longest=self._longest, cache_gib=self._cache_gib, weights_checksum=self._weights_checksum
            )
        asked = [row[-length:] for row, length in zip(prompts.tokens.tolist(), prompts.lengths.tolist(), strict=True)]
        rules = [self._rules(each) for each in _seeds(seed, prompts.rows, group_size)]
        answers = self._engine.generate([prompt for prompt in asked for _ in range(group_size)], rules)
        tokens = [list(answer.token_ids) for answer in answers]
        logprobs = [
            [float(at[token].logprob) for at, token in zip(answer.logprobs, answer.token_ids, strict=True)]
            for answer in answers
        ]
        return self._rollouts(prompts, group_size, tokens, logprobs)

    def _rollouts(
        self, prompts: Prompts, group_size: int, tokens: list[list[int]], logprobs: list[list[float]]
    ) -> Rollouts:
        text, device = self.policy.text, self.policy.device
        lengths = torch.tensor([len(row) for row in tokens], device=device)
        return Rollouts(
            prompts=prompts.tokens.repeat_interleave(group_size, 0).to(device),
            prompt_lengths=prompts.lengths.repeat_interleave(group_size).to(device),
            responses=_padded(tokens, text.pad, torch.long).to(device),
            mask=torch.arange(int(lengths.max()), device=device)[None] < lengths[:, None],
            group=torch.arange(len(tokens), device=device) // group_size,
            logprobs=_padded(logprobs, 0.0, torch.float32).to(device),
            truncated=torch.tensor([row[-1] not in text.stops for row in tokens], device=device),
            texts=tuple(text.decode(row) for row in tokens),
            rows=tuple(row for row in prompts.rows for _ in range(group_size)),
        )

    def _rules(self, seed: int) -> Any:
        from vllm import SamplingParams

        text, cut = self.policy.text, self.logits_filter
        return SamplingParams(
            seed=seed,
            temperature=self.temperature,
            max_tokens=self.max_new_tokens,
            top_k=cut.top_k,
            top_p=cut.top_p,
            min_p=cut.min_p,
            stop_token_ids=list(text.stops),
            ignore_eos=True,
            logprobs=0,
            detokenize=False,
            logit_bias=dict.fromkeys(text.suppressed, FORBIDDEN) or None,
        )


def _seeds(seed: int, rows: Sequence[Row], group_size: int) -> list[int]:
    """One for each rollout; a prompt that comes twice goes on numbering its responses, as in our own sampler."""
    numbers: defaultdict[object, count[int]] = defaultdict(count)
    return [address(seed, "sample", row["id"], next(numbers[row["id"]])) for row in rows for _ in range(group_size)]


def _padded(rows: list[list[Any]], fill: float, dtype: torch.dtype) -> Tensor:
    return pad_sequence([torch.tensor(row, dtype=dtype) for row in rows], batch_first=True, padding_value=fill)
