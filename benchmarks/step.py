"""Where the time of a step goes, by model and method, and what shared prompts, threads and microbatches do to it.

    python -m benchmarks.step [rounds]

Each cell is the median of the seconds of a step, or of a part of it; behind it stands the ratio to the first row of its
block, and from its lowest to its highest, round by round. Weights are random and hardly moved, so that all rows do the
same work; answers are cut to lengths between a quarter of the limit and all of it.
"""

import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from alignbench.algorithms.grpo import GRPO
from alignbench.algorithms.ppo import PPO
from alignbench.core.batches import Prompts, Rollouts
from alignbench.core.seeds import derive
from alignbench.data.arithmetic import Arithmetic
from alignbench.data.prompt_stream import PromptStream
from alignbench.engine.checks import Invariants
from alignbench.engine.optimizer import AdamW
from alignbench.engine.run_state import RunState, StepReport
from alignbench.kernels.hardware import Hardware
from alignbench.models import critic as critics
from alignbench.models.loading import Tiny
from alignbench.models.policy import CausalPolicy
from alignbench.rewards.exact_match import ExactMatch
from alignbench.stages.online import RL

PARTS = ("rollout", "score", "update")
TINY = Tiny(dtype="float32")
MEDIUM = Tiny(dtype="float32", hidden=512, layers=8, heads=8, intermediate=1536, vocabulary=4000)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One row of the table."""

    model: Tiny = TINY
    algorithm: Any = field(default_factory=GRPO)
    rollouts: int = 128
    examples: int = 0
    """Worked problems before each prompt."""
    new_tokens: int = 32
    shared: bool = True
    """Whether siblings may be read behind the prompt they share."""
    old_logprobs: Literal["auto", "rescored"] = "auto"
    hardware: Hardware = field(default_factory=lambda: Hardware(device="cpu", threads=1))


@dataclass(frozen=True)
class Cut:
    """The sampler, its answers cut to lengths between a quarter of the limit and all of it."""

    sampler: Any

    def __call__(self, prompts: Prompts, group_size: int, seed: int) -> Rollouts:
        rollouts = self.sampler(prompts, group_size, seed)
        n, t = rollouts.mask.shape
        lengths = torch.randint(max(t // 4, 1), t + 1, (n, 1), generator=derive(seed, "cut"))
        mask = rollouts.mask & (torch.arange(t) < lengths)
        return replace(rollouts, mask=mask, logprobs=torch.where(mask, rollouts.logprobs, 0.0))


def steps(setting: Setting) -> Iterator[StepReport]:
    """Steps of a new run, without end."""
    data = Arithmetic(train_rows=1000, demonstration_rows=3000)
    worked = [row["prompt"] + row["completion"] for row in data.demonstrations()]
    model, text = setting.model.load(texts=worked, start=None, device="cpu", seed=0)
    setting.hardware.apply_kernels(model)
    setting.hardware.apply_checkpointing(model)
    critic = setting.algorithm.critic and critics.make_critic(model, setting.algorithm.critic, seed=0)
    policy = CausalPolicy(model, text, critic=critic)
    policy.freeze_reference()
    policy.packing = replace(policy.packing, supported=setting.shared)
    rl = RL(
        rollouts_per_step=setting.rollouts,
        max_new_tokens=setting.new_tokens,
        old_logprobs=setting.old_logprobs,
        optimizer=AdamW(learning_rate=1e-9),
    )
    before = "\n".join(worked[: setting.examples])
    stream = PromptStream(
        data.prompts("train"),
        lambda prompt: text.encode_prompt(before + prompt),
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
    engine = replace(engine, sampler=Cut(engine.sampler))
    return rl.run(engine, stream, RunState.at_start(setting.algorithm))


def compare(title: str, settings: dict[str, Setting], rounds: int) -> None:
    """Print one line for each setting: a step of each in turn, as often as there are rounds."""
    running = {name: steps(setting) for name, setting in settings.items()}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in settings}
    for _ in range(rounds + 1):
        for name, reports in running.items():
            settings[name].hardware.prepare()
            report = next(reports)
            parts = {part: report.metrics[f"cost/{part}_seconds"] for part in PARTS}
            found[name].append({"step": sum(parts.values()), **parts})
            scored = report.scored
    tell(
        f"\n{title}: prompts of {scored.prompt_lengths.float().mean():.0f} tokens, "
        f"answers of {scored.mask.sum(1).float().mean():.0f}, seconds of {len(scored)} rollouts"
    )
    first = next(iter(found.values()))[1:]  # the first step warms caches up, and reads what was sampled once more
    for name, seen in found.items():
        tell(f"  {name:26}" + "   ".join(f"{part} {_told(part, seen[1:], first)}" for part in first[0]))


def _told(part: str, seen: list[dict[str, float]], first: list[dict[str, float]]) -> str:
    ratios = sorted(s[part] / f[part] for s, f in zip(seen, first, strict=True))
    middle = statistics.median(ratios)
    return f"{statistics.median(s[part] for s in seen):7.4f} x {middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def tell(line: str) -> None:
    """Show a line now."""
    print(line, flush=True)


def main(rounds: int) -> None:
    """Print the tables."""
    shapes = {
        "tiny": Setting(),
        "tiny, longer prompts": Setting(examples=4),
        "tiny, longer prompts and answers": Setting(examples=4, new_tokens=128, rollouts=64),
        "8 layers of width 512": Setting(model=MEDIUM, examples=4, rollouts=32),
    }
    for name, shape in shapes.items():
        compare(
            name,
            {
                "grpo": shape,
                "grpo, rescored": replace(shape, old_logprobs="rescored"),
                "grpo, rescored, alone": replace(shape, shared=False, old_logprobs="rescored"),
                "ppo": replace(shape, algorithm=PPO()),
                "ppo, groups of 8": replace(shape, algorithm=PPO(group_size=8)),
            },
            rounds if shape.model is TINY else max(rounds // 3, 2),
        )
    tiny, deep = Setting(), Setting(model=MEDIUM, examples=4, rollouts=32)
    kinds = {
        "as it comes": {},
        "microbatch of 16": {"microbatch_size": 16},
        "of 32": {"microbatch_size": 32},
        "of 64": {"microbatch_size": 64},
        "of 1024 tokens": {"tokens_per_microbatch": 1024},
        "of 4096 tokens": {"tokens_per_microbatch": 4096},
        "2 threads": {"threads": 2},
        "activation checkpointing": {"activation_checkpointing": True},
    }
    for name, shape, how_often in (("tiny", tiny, rounds), ("8 layers of width 512", deep, max(rounds // 3, 2))):
        compare(
            f"{name}, on other hardware settings",
            {kind: replace(shape, hardware=replace(shape.hardware, **changed)) for kind, changed in kinds.items()},
            how_often,
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
