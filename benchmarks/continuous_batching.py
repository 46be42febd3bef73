"""Time and memory of continuous batching against one batch of all responses and against several batches.

    python -m benchmarks.continuous_batching [rounds]

Weights are random; each token ends its response with probability 5%. Each line gives the forward passes of a round, its
time relative to one batch (median, minimum and maximum of the rounds), and the peak memory of tensors without weights.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import torch

from alignbench.core.batches import Prompts
from alignbench.generation.sampler import Sampler
from alignbench.models.policy import CausalPolicy
from alignbench.planning.memory import LiveTensorCounter
from benchmarks.page import print_line
from benchmarks.trl_rollouts import ENDING, NEW_TOKENS, set_end_probability
from benchmarks.trl_setting import SETTINGS, load, make_model, stream

CASES = (("0.5M", 64, 8, (64, 128)), ("30M", 32, 8, (64,)), ("30M", 32, 1, (8,)))
"""Model, prompts, responses per prompt, and numbers of concurrent responses."""
Sample = Callable[[int], None]
"""Samples all responses with a seed."""


def make_sample(policy: CausalPolicy, prompts: Prompts, group: int, concurrent: int | None, batch_size: int) -> Sample:
    """Sample in batches of `batch_size` prompts, at most `concurrent` responses at a time (None: all of a batch)."""
    sampler = Sampler(policy=policy, max_new_tokens=NEW_TOKENS, temperature=1.0, rollouts_at_once=concurrent)
    parts = [slice(first, first + batch_size) for first in range(0, len(prompts), batch_size)]
    batches = [Prompts(tokens=prompts.tokens[p], lengths=prompts.lengths[p], rows=prompts.rows[p]) for p in parts]

    def sample(seed: int) -> None:
        for batch in batches:
            sampler(batch, group, seed)

    return sample


def count_passes(policy: CausalPolicy, sample: Sample) -> int:
    """Number of forward passes."""
    calls: list[None] = []
    hook = policy.inner.register_forward_hook(lambda *_: calls.append(None))
    sample(0)
    hook.remove()
    return len(calls)


def peak_memory(policy: CausalPolicy, sample: Sample) -> int:
    """Peak bytes of tensors, weights not counted."""
    with LiveTensorCounter(policy.model.parameters()) as alive:
        sample(0)
    return alive.peak


def seconds(sample: Sample, seed: int) -> float:
    """Seconds of one round."""
    start = perf_counter()
    sample(seed)
    return perf_counter() - start


def main() -> None:
    """Print one line for each way of batching."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    torch.set_num_threads(1)
    for name, count, group, sizes in CASES:
        setting = replace(SETTINGS[name], sft_steps=0)
        with tempfile.TemporaryDirectory() as folder:
            policy = set_end_probability(CausalPolicy(*load(make_model(setting, Path(folder)))), ENDING)
        prompts = next(iter(stream(setting, policy.text, count).after(0)))
        ways = {"one batch": make_sample(policy, prompts, group, None, count)}
        for size in sizes:
            ways |= {
                f"continuous batching, {size} concurrent": make_sample(policy, prompts, group, size, count),
                f"batches of {size}": make_sample(policy, prompts, group, None, size // group),
            }
        times = [{way: seconds(sample, seed) for way, sample in ways.items()} for seed in range(rounds)]
        for way, sample in ways.items():
            ratios = [time[way] / time["one batch"] for time in times]
            print_line(
                f"{name}, {count} x {group}, {way}: {count_passes(policy, sample)} passes, "
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) of the time, "
                f"{peak_memory(policy, sample) / 2**20:.0f} MiB"
            )


if __name__ == "__main__":
    main()
