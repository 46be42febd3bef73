"""The answers of a step all at once, with others coming in, or in batches: time and memory.

    python -m benchmarks.continuous_batching [rounds]

Random weights; each token ends its answer with a chance of 5%. Told are the passes of a round, its time over that of
all at once (the median, the lowest and the highest of the rounds), and the most bytes of tensors beside the weights.
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
from benchmarks.trl_rollouts import ENDING, NEW_TOKENS, with_ending
from benchmarks.trl_setting import SETTINGS, load, make_model, stream

CASES = (("0.5M", 64, 8, (64, 128)), ("30M", 32, 8, (64,)), ("30M", 32, 1, (8,)))
"""Model, prompts, answers to each, and how many answers at a time."""
Way = Callable[[int], None]


def way(policy: CausalPolicy, prompts: Prompts, group: int, at_once: int | None, read: int) -> Way:
    """Draw the answers of a seed, that many at a time, to that many prompts after that many."""
    sampler = Sampler(policy=policy, max_new_tokens=NEW_TOKENS, temperature=1.0, rollouts_at_once=at_once)
    parts = [slice(first, first + read) for first in range(0, len(prompts), read)]
    batches = [Prompts(tokens=prompts.tokens[p], lengths=prompts.lengths[p], rows=prompts.rows[p]) for p in parts]

    def draw(seed: int) -> None:
        for batch in batches:
            sampler(batch, group, seed)

    return draw


def passes(policy: CausalPolicy, draw: Way) -> int:
    """How often the model is called."""
    calls: list[None] = []
    hook = policy.inner.register_forward_hook(lambda *_: calls.append(None))
    draw(0)
    hook.remove()
    return len(calls)


def held(policy: CausalPolicy, draw: Way) -> int:
    """The most bytes of tensors beside the weights."""
    with LiveTensorCounter(policy.model.parameters()) as alive:
        draw(0)
    return alive.peak


def seconds(draw: Way, seed: int) -> float:
    """What drawing the answers of that seed takes."""
    start = perf_counter()
    draw(seed)
    return perf_counter() - start


def main() -> None:
    """Print a line for each way."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    torch.set_num_threads(1)
    for name, prompts, group, sizes in CASES:
        setting = replace(SETTINGS[name], imitation_steps=0)
        with tempfile.TemporaryDirectory() as folder:
            policy = with_ending(CausalPolicy(*load(make_model(setting, Path(folder)))), ENDING)
        asked = next(iter(stream(setting, policy.text, prompts).after(0)))
        ways = {"all at once": way(policy, asked, group, None, prompts)}
        for size in sizes:
            ways |= {
                f"{size}, others come in": way(policy, asked, group, size, prompts),
                f"batches of {size}": way(policy, asked, group, None, size // group),
            }
        took = [{told: seconds(draw, seed) for told, draw in ways.items()} for seed in range(rounds)]
        for told, draw in ways.items():
            ratios = [times[told] / times["all at once"] for times in took]
            print(
                f"{name}, {prompts} x {group}, {told}: {passes(policy, draw)} passes, "
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) of the time, "
                f"{held(policy, draw) / 2**20:.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
