"""Time of a training step by part, for models, methods, shared prompts, threads and microbatch sizes.

    python -m benchmarks.step [rounds]

Each cell is the median of the seconds of a step or of a part of it, followed by the ratio to the first row of its table
(median, minimum and maximum of the rounds). Weights are random and the learning rate is almost 0, so that all rows do
the same work; responses are truncated to random lengths between a quarter of the limit and the limit.
"""

import statistics
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from alignbench.algorithms.grpo import GRPO
from alignbench.algorithms.ppo import PPO
from alignbench.core.batches import Prompts, Rollouts
from alignbench.core.protocols import Algorithm, Sampler
from alignbench.core.seeds import derive
from alignbench.data.arithmetic import Arithmetic
from alignbench.data.prompt_stream import PromptStream
from alignbench.engine.checks import Invariants
from alignbench.engine.optimizer import AdamW
from alignbench.engine.run_state import RunState, StepReport
from alignbench.kernels.hardware import Hardware
from alignbench.models.loading import Tiny
from alignbench.rewards.exact_match import ExactMatch
from alignbench.stages.online import RL
from benchmarks.page import print_line
from benchmarks.workload import PARTS, build_policy

TINY = Tiny(dtype="float32")
MEDIUM = Tiny(dtype="float32", hidden=512, layers=8, heads=8, intermediate=1536, vocabulary=4000)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One row of a table."""

    model: Tiny = TINY
    algorithm: Algorithm = field(default_factory=GRPO)
    rollouts: int = 128
    examples: int = 0
    """Solved problems before each prompt."""
    new_tokens: int = 32
    shared: bool = True
    """Whether responses of a group share one pass over their prompt."""
    old_logprobs: Literal["auto", "rescored"] = "auto"
    hardware: Hardware = field(default_factory=lambda: Hardware(device="cpu", threads=1))


@dataclass(frozen=True)
class TruncatingSampler:
    """A sampler whose responses are truncated to random lengths between a quarter of the limit and the limit."""

    sampler: Sampler

    def __call__(self, prompts: Prompts, group_size: int, seed: int) -> Rollouts:
        rollouts = self.sampler(prompts, group_size, seed)
        n, t = rollouts.mask.shape
        lengths = torch.randint(max(t // 4, 1), t + 1, (n, 1), generator=derive(seed, "cut"))
        mask = rollouts.mask & (torch.arange(t) < lengths)
        return replace(rollouts, mask=mask, logprobs=torch.where(mask, rollouts.logprobs, 0.0))


def run_steps(setting: Setting) -> Iterator[StepReport]:
    """Steps of a new run."""
    data = Arithmetic(train_rows=1000, demonstration_rows=3000)
    solved = [row["prompt"] + row["completion"] for row in data.demonstrations()]
    model, text = setting.model.load(texts=solved, start=None, device="cpu", seed=0)
    setting.hardware.apply_kernels(model)
    setting.hardware.apply_checkpointing(model)
    policy = build_policy(model, text, setting.algorithm.critic)
    policy.packing = replace(policy.packing, supported=setting.shared)
    rl = RL(
        rollouts_per_step=setting.rollouts,
        max_new_tokens=setting.new_tokens,
        old_logprobs=setting.old_logprobs,
        optimizer=AdamW(learning_rate=1e-9),
    )
    prefix = "\n".join(solved[: setting.examples])
    stream = PromptStream(
        data.prompts("train"),
        lambda prompt: text.encode_prompt(prefix + prompt),
        rl.prompts_per_step(setting.algorithm),
        0,
        text.pad,
        1024,
    )
    engine = rl.build_loop(
        policy,
        ExactMatch(),
        setting.algorithm,
        0,
        setting.hardware.microbatch_rows,
        Invariants(weights_moved="off"),
        setting.hardware.microbatch_tokens,
    )
    engine = replace(engine, sampler=TruncatingSampler(engine.sampler))
    return rl.run(engine, stream, RunState.at_start(setting.algorithm))


def compare(title: str, settings: Mapping[str, Setting], rounds: int) -> None:
    """Run the settings in turn, one step per round, and print one line for each."""
    running = {name: run_steps(setting) for name, setting in settings.items()}
    results: dict[str, list[dict[str, float]]] = {name: [] for name in settings}
    for _ in range(rounds + 1):
        for name, reports in running.items():
            settings[name].hardware.prepare()
            report = next(reports)
            parts = {part: report.metrics[f"cost/{part}_seconds"] for part in PARTS}
            results[name].append({"step": sum(parts.values()), **parts})
    scored = report.scored
    assert scored is not None
    print_line(
        f"\n{title}: prompts of {scored.prompt_lengths.float().mean():.0f} tokens, "
        f"responses of {scored.mask.sum(1).float().mean():.0f}, seconds of {len(scored)} rollouts"
    )
    first = next(iter(results.values()))[1:]  # step 0 warms caches up and rescores what was sampled
    for name, timings in results.items():
        print_line(f"  {name:26}" + "   ".join(f"{part} {_format(part, timings[1:], first)}" for part in first[0]))


def _format(part: str, timings: list[dict[str, float]], first: list[dict[str, float]]) -> str:
    ratios = sorted(t[part] / f[part] for t, f in zip(timings, first, strict=True))
    middle = statistics.median(ratios)
    return f"{statistics.median(t[part] for t in timings):7.4f} x {middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def main(rounds: int) -> None:
    """Print the tables."""
    shapes = {
        "tiny": Setting(),
        "tiny, longer prompts": Setting(examples=4),
        "tiny, longer prompts and responses": Setting(examples=4, new_tokens=128, rollouts=64),
        "8 layers of width 512": Setting(model=MEDIUM, examples=4, rollouts=32),
    }
    for name, shape in shapes.items():
        compare(
            name,
            {
                "grpo": shape,
                "grpo, rescored": replace(shape, old_logprobs="rescored"),
                "grpo, rescored, not shared": replace(shape, shared=False, old_logprobs="rescored"),
                "ppo": replace(shape, algorithm=PPO()),
                "ppo, groups of 8": replace(shape, algorithm=PPO(group_size=8)),
            },
            rounds if shape.model is TINY else max(rounds // 3, 2),
        )
    tiny, deep = Setting(), Setting(model=MEDIUM, examples=4, rollouts=32)
    options: dict[str, dict[str, Any]] = {
        "default": {},
        "microbatch of 16": {"microbatch_size": 16},
        "of 32": {"microbatch_size": 32},
        "of 64": {"microbatch_size": 64},
        "of 1024 tokens": {"tokens_per_microbatch": 1024},
        "of 4096 tokens": {"tokens_per_microbatch": 4096},
        "2 threads": {"threads": 2},
        "activation checkpointing": {"activation_checkpointing": True},
    }
    for name, shape, count in (("tiny", tiny, rounds), ("8 layers of width 512", deep, max(rounds // 3, 2))):
        compare(
            f"{name}, by hardware setting",
            {
                option: replace(shape, hardware=replace(shape.hardware, **changes))
                for option, changes in options.items()
            },
            count,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
