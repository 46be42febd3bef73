"""Where a step's time goes on the embedded default, and what threads and microbatches do to it: ratios, in alternation.

    python benchmarks/step.py [rounds]
"""

import statistics
import sys
import tempfile
from itertools import islice
from pathlib import Path

import torch

from alignbench.algorithms.grpo import GRPO
from alignbench.algorithms.ppo import PPO
from alignbench.data.arithmetic import Arithmetic
from alignbench.data.stream import PromptStream
from alignbench.engine.invariants import Invariants
from alignbench.engine.state import RunState
from alignbench.models import critic as critics
from alignbench.models.loading import Tiny
from alignbench.models.policy import CausalPolicy
from alignbench.phases.follow import write_down
from alignbench.phases.rl import RL
from alignbench.rewards.exact_match import ExactMatch
from alignbench.store.tracker import Tracker

STEPS = 6
PARTS = ("rollout", "score", "update")


def measure(algorithm: GRPO | PPO, microbatch_size: int, threads: int) -> dict[str, float]:
    """Seconds of each part of a step, and what writing it down takes, over a few steps of a new run."""
    torch.set_num_threads(threads)
    data = Arithmetic(train_rows=1000, demonstration_rows=3000)
    texts = [row["prompt"] + row["completion"] for row in data.demonstrations()]
    model, text = Tiny(dtype="float32").load(texts=texts, start=None, device="cpu", seed=0)
    critic = algorithm.critic and critics.make(model, algorithm.critic, seed=0)
    policy = CausalPolicy(model, text, critic=critic)
    policy.freeze_reference()
    rl = RL()
    stream = PromptStream(data.prompts("train"), text.prompt, rl.prompts_per_step(algorithm), 0, text.pad, 256)
    engine = rl.engine(policy, ExactMatch(), algorithm, 0, microbatch_size, Invariants())
    with tempfile.TemporaryDirectory() as folder, Tracker.open(
        Path(folder) / "run", uri=None, output_dir=Path(folder), run_name="step", tags={"phase": "rl"}, params={},
        resume_after=None,
    ) as tracker:
        reports = write_down(rl.run(engine, stream, RunState.at_start(algorithm)), tracker, "rl")
        next(reports)  # the first step warms caches up
        shown = [report.metrics for report in islice(reports, STEPS)]
        seconds = {part: statistics.median(m[f"cost/{part}_seconds"] for m in shown) for part in PARTS}
        return {**seconds, "write down": tracker.seconds / (STEPS + 1)}


def main(rounds: int) -> None:
    """Print one line for each setting: seconds by part, and the step as a ratio to the default's, lowest to highest."""
    settings = {
        "grpo, microbatch 32, 1 thread": (GRPO(), 32, 1),
        "ppo,  microbatch 32, 1 thread": (PPO(), 32, 1),
        "grpo, microbatch 16, 1 thread": (GRPO(), 16, 1),
        "grpo, microbatch 64, 1 thread": (GRPO(), 64, 1),
        "grpo, microbatch 32, 2 threads": (GRPO(), 32, 2),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in settings}
    for _ in range(rounds):
        for name, how in settings.items():
            found[name].append(measure(*how))
    default = [sum(r[p] for p in PARTS) for r in found["grpo, microbatch 32, 1 thread"]]
    for name, rounds_of in found.items():
        mean = {part: statistics.median(r[part] for r in rounds_of) for part in rounds_of[0]}
        ratios = sorted(sum(r[p] for p in PARTS) / d for r, d in zip(rounds_of, default, strict=True))
        parts = "  ".join(f"{part} {value:.4f}" for part, value in mean.items())
        print(f"{name:32} {parts} s   step x {ratios[0]:.2f} to {ratios[-1]:.2f}")  # noqa: T201  this is its purpose


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
