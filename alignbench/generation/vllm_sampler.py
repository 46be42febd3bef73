"""The vLLM sampler: prompts to rollouts with the interface of our own sampler, but other kernels."""

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
"""Logit bias of a suppressed token: the lowest that vLLM allows, a factor of exp(-100) in probability."""


class VLLMSampler:
    """The same interface as `Sampler`; vLLM is imported at the first call.

    Each rollout is a request with its own seed and random generator, so the other requests of a batch do not change its
    random numbers. They can change its logits by floating-point error, since kernels may sum in another order for
    another batch size. Only VLLM_BATCH_INVARIANT=1, on GPUs that vLLM supports, guarantees equal bits.
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
        """`weights_checksum` is used to find out whether the weights have changed since vLLM loaded them.

        Raises:
            UserError: top_p and min_p are both set, which vLLM applies in another order.
        """
        if logits_filter is not None and logits_filter.top_p < 1 and logits_filter.min_p:
            raise UserError(
                "hardware.sampler=vllm applies rl.logits_filter.min_p before top_p, our own sampler after it: set only "
                "one of them, or hardware.sampler=own"
            )
        self.policy, self.max_new_tokens, self.temperature = policy, max_new_tokens, temperature
        self.logits_filter = logits_filter or LogitsFilter()
        self._longest, self._cache_gib = max_prompt_tokens + max_new_tokens, cache_gib
        self._weights_checksum = weights_checksum
        self._engine: VLLMEngine | None = None

    @torch.no_grad()
    def __call__(self, prompts: Prompts, group_size: int, seed: int) -> Rollouts:
        """Sample `group_size` responses to each prompt; each depends on the seed, its prompt and its number."""
        if self._engine is None:
            self._engine = VLLMEngine(
                self.policy, longest=self._longest, cache_gib=self._cache_gib, weights_checksum=self._weights_checksum
            )
        prompt_tokens = [
            row[-length:] for row, length in zip(prompts.tokens.tolist(), prompts.lengths.tolist(), strict=True)
        ]
        params = [self._sampling_params(each) for each in _seeds(seed, prompts.rows, group_size)]
        answers = self._engine.generate([prompt for prompt in prompt_tokens for _ in range(group_size)], params)
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

    def _sampling_params(self, seed: int) -> Any:
        from vllm import SamplingParams

        text, kept = self.policy.text, self.logits_filter
        return SamplingParams(
            seed=seed,
            temperature=self.temperature,
            max_tokens=self.max_new_tokens,
            top_k=kept.top_k,
            top_p=kept.top_p,
            min_p=kept.min_p,
            stop_token_ids=list(text.stops),
            ignore_eos=True,
            logprobs=0,
            detokenize=False,
            logit_bias=dict.fromkeys(text.suppressed, FORBIDDEN) or None,
        )


def _seeds(seed: int, rows: Sequence[Row], group_size: int) -> list[int]:
    """One seed per rollout; the numbering of responses continues if a prompt occurs again, as in `Sampler`."""
    numbers: defaultdict[object, count[int]] = defaultdict(count)
    return [address(seed, "sample", row["id"], next(numbers[row["id"]])) for row in rows for _ in range(group_size)]


def _padded(rows: list[list[Any]], fill: float, dtype: torch.dtype) -> Tensor:
    return pad_sequence([torch.tensor(row, dtype=dtype) for row in rows], batch_first=True, padding_value=fill)
