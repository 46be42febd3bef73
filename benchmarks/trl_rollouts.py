"""Rollouts alone: the sampler against transformers.generate and a lower bound of the same decoding steps."""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

from alignbench.core.batches import Prompts, Rollouts
from alignbench.generation.sampler import Sampler
from alignbench.kernels.onednn import prepacked_weights
from alignbench.models.policy import CausalPolicy
from benchmarks.trl_setting import SETTINGS, Setting, load, load_with_transformers, stream

NEW_TOKENS, ENDING = 64, 0.05
PROMPTS = {"0.5M": 16, "30M": 8}


@dataclass(frozen=True)
class Case:
    """A model, with responses of fixed or variable length."""

    setting: Setting
    variable: bool

    @property
    def name(self) -> str:
        """The row label of the table."""
        return f"{self.setting.name}, {'variable' if self.variable else 'fixed'} length"


CASES = [Case(setting, variable) for setting in SETTINGS.values() for variable in (False, True)]


def set_end_probability(policy: CausalPolicy, probability: float) -> CausalPolicy:
    """A policy whose end token has about this probability; the other tokens keep their relative probabilities."""
    head = nn.Linear(policy.hidden_size, policy.vocabulary)
    head.weight, head.__class__ = policy.lm_head.weight, type(policy.lm_head)
    with torch.no_grad():
        head.bias.zero_()
        head.bias[policy.text.eos] = (
            math.log(probability / (1 - probability) * policy.vocabulary) if probability else -1e4
        )
    policy.inner.set_output_embeddings(head)
    return CausalPolicy(policy.model, policy.text)


def generate(policy: CausalPolicy, prompts: Prompts, group_size: int) -> int:
    """Sample with transformers; returns the number of sampled tokens, end tokens included."""
    ids, lengths = (part.repeat_interleave(group_size, 0) for part in (prompts.tokens, prompts.lengths))
    attended = torch.arange(ids.shape[1])[None] >= (ids.shape[1] - lengths)[:, None]
    with torch.no_grad():
        out = policy.model.generate(
            ids,
            attention_mask=attended.long(),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=policy.text.eos,
            pad_token_id=policy.text.pad,
        )
    ended = (out[:, ids.shape[1] :] == policy.text.eos).cumsum(1).cumsum(1)  # 1 at the first end token, larger after it
    return int((ended <= 1).sum())


@torch.no_grad()
def run_matrix_products(policy: CausalPolicy, rollouts: Rollouts) -> None:
    """Run only the matrix products of the same decoding steps, attention over keys and values included.

    Uses the sampler's linear layers; a group attends to its prompt together, and finished rows are not computed.
    """
    config = policy.inner.config
    width, heads = config.hidden_size, config.num_attention_heads
    head_dim = width // heads
    layers = [[m for m in layer.modules() if isinstance(m, nn.Linear)] for layer in policy.decoder.layers]
    prompt = rollouts.prompts.shape[1]
    lengths, groups = rollouts.mask.sum(1), int(rollouts.group.max()) + 1
    own_cache, prompt_cache = (
        [[torch.randn(n * heads, t, head_dim) for _ in range(2)] for _ in layers]
        for n, t in ((len(rollouts), rollouts.mask.shape[1]), (groups, prompt))
    )
    inputs = {n: torch.randn(len(rollouts), n) for n in {m.in_features for layer in layers for m in layer} | {width}}
    for t in range(rollouts.mask.shape[1]):
        active = int((lengths > t).sum())
        queries = torch.randn(active * heads, 1, head_dim)
        grouped = torch.randn(groups * heads, max(active // groups, 1), head_dim)
        for layer, own, shared in zip(layers, own_cache, prompt_cache, strict=True):
            for linear in layer:
                linear(inputs[linear.in_features][:active])
            _attend(queries, *(cached[: active * heads, : t + 1] for cached in own))
            _attend(grouped, *shared)
        policy.lm_head(inputs[width][:active])


def _attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return (queries @ keys.mT) @ values


def tokens_per_second(work: Callable[[], int]) -> float:
    """Time a call that returns a number of tokens."""
    start = perf_counter()
    tokens = work()
    return tokens / (perf_counter() - start)


def compare(case: Case, folder: Path, rounds: int) -> list[dict[str, float]]:
    """Tokens per second of the sampler, generate and the lower bound, in turn, for each round."""
    torch.set_num_threads(case.setting.threads)
    policy, plain = (
        set_end_probability(CausalPolicy(*load_model(folder)), ENDING if case.variable else 0.0)
        for load_model in (load, load_with_transformers)
    )
    prompts = next(iter(stream(case.setting, policy.text, PROMPTS[case.setting.name]).after(0)))
    sampler, group = Sampler(policy=policy, max_new_tokens=NEW_TOKENS, temperature=1.0), case.setting.group_size
    results = []
    for seed in range(rounds + 1):
        sampled: list[Rollouts] = []

        def ours(seed: int = seed, sampled: list[Rollouts] = sampled) -> int:
            sampled.append(sampler(prompts, group, seed))
            return int(sampled[0].mask.sum())

        def floor(sampled: list[Rollouts] = sampled) -> int:
            with prepacked_weights(policy.model):
                run_matrix_products(policy, sampled[0])
            return int(sampled[0].mask.sum())

        results.append(
            {
                "ours": tokens_per_second(ours),
                "generate": tokens_per_second(lambda: generate(plain, prompts, group)),
                "floor": tokens_per_second(floor),
            }
        )
    return results[1:]  # the first round warms up


def main() -> None:
    """Print the results as JSON. Arguments: rounds, then the model folders in the order of SETTINGS."""
    folders = dict(zip(SETTINGS, map(Path, sys.argv[2:]), strict=True))
    rounds = int(sys.argv[1])
    results = {case.name: compare(case, folders[case.setting.name], rounds) for case in CASES}
    print(json.dumps(results))


if __name__ == "__main__":
    main()
