"""Peak memory and seconds of one step of GRPO, and of PPO with each critic, at equal completions on one model.

    python benchmarks/memory.py [--gpu] [--rows] [--rounds 1] [--threads 1]

Random weights of Gemma's shape, the base in 4 bits under a LoRA adapter of rank 16; with --gpu the size of Gemma 2B.
A microbatch holds as many tokens in every method, or with --rows as many answers: GRPO reads a prompt once for a group.
Each method is measured in a fresh process, in its second step: the most memory above that of the loaded model, and with
the model (whole). On a GPU that is torch.cuda.max_memory_allocated, on a CPU what is resident. Tensors are the bytes of
those alive above the model as torch dispatches them, in the first step, where watching every call takes its time.
Seconds are those of the clock on a GPU, and those the process computed on a CPU, which others may be using too.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time
from typing import Any

import torch

from alignbench.algorithms.grpo import GRPO
from alignbench.algorithms.ppo import PPO
from alignbench.core.batches import Rollouts, Scores
from alignbench.core.protocols import Critic
from alignbench.data.prompt_stream import PromptStream
from alignbench.engine.checks import Invariants
from alignbench.engine.run_state import RunState
from alignbench.kernels.hardware import resident_memory
from alignbench.models import critic as critics
from alignbench.models.loading import Lora, Pretrained
from alignbench.models.policy import CausalPolicy
from alignbench.models.tiny import tiny_tokenizer
from alignbench.planning.memory import LiveTensorCounter
from alignbench.stages.online import RL

MIB = 1 << 20
METHODS = {
    "grpo": GRPO(group_size=6),
    "ppo, shared critic": PPO(),
    "ppo, separate critic": PPO(critic=Critic(trunk="separate")),
}


@dataclass(frozen=True)
class Size:
    """What is measured."""

    model: dict[str, int]
    completions: int
    prompt_tokens: int
    new_tokens: int
    microbatch_size: int
    tokens_per_microbatch: int
    """Of one group of GRPO's."""


SMALL = Size(
    model={
        "vocab_size": 32768,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 14,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 128,
    },
    completions=12,
    prompt_tokens=16,
    new_tokens=16,
    microbatch_size=6,
    tokens_per_microbatch=16 + 6 * 16,
)
GEMMA_2B = Size(
    model={
        "vocab_size": 256000,
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "num_hidden_layers": 18,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 256,
    },
    completions=12,
    prompt_tokens=256,
    new_tokens=256,
    microbatch_size=1,
    tokens_per_microbatch=256 + 6 * 256,
)


class Sums:
    """A score of no meaning that differs from answer to answer."""

    def __call__(self, rollouts: Rollouts) -> Scores:
        return Scores(total=((rollouts.responses * rollouts.mask).sum(1) % 7).float(), components={})

    def check(self, rows: Any) -> None:
        """Every answer has one."""

    def content_hash(self) -> str:
        """There is only one."""
        return "sums"


def write_model(size: Size, folder: Path) -> None:
    """Random weights of that shape, as save_pretrained writes them."""
    from transformers import AutoModelForCausalLM, GemmaConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = tiny_tokenizer(["1 + 2 = 3"], 258)
    torch.manual_seed(0)
    config = GemmaConfig(**size.model, bos_token_id=None, eos_token_id=1, pad_token_id=0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure(method: str, size: Size, folder: Path, device: str, rows: bool) -> dict[str, float]:
    """What the second step of a new run takes, the model in `folder` having been loaded."""
    algorithm = METHODS[method]
    source = Pretrained(name="gemma", path=str(folder), quantization="nf4", lora=Lora(rank=16))
    model, text = source.load(texts=(), start=None, device=device, seed=0)
    gc.collect()
    loaded = Meter(device)
    critic = algorithm.critic and critics.make_critic(model, algorithm.critic, seed=0)
    policy = CausalPolicy(model, text, critic=critic)
    policy.freeze_reference()
    rl = RL(steps=2, rollouts_per_step=size.completions, max_new_tokens=size.new_tokens, minibatches=2)
    engine = rl.build_loop(
        policy,
        Sums(),
        algorithm,
        0,
        size.microbatch_size,
        Invariants(first_ratio="off"),
        None if rows else size.tokens_per_microbatch,
    )
    draw = torch.Generator().manual_seed(0)
    prompts = torch.randint(2, 258, (size.completions, size.prompt_tokens), generator=draw).tolist()
    asked = [{"id": i, "prompt": str(i)} for i in range(size.completions)]
    stream = PromptStream(
        asked, lambda name: prompts[int(name)], rl.prompts_per_step(algorithm), 0, text.pad, size.prompt_tokens
    )
    reports = rl.run(engine, stream, RunState.at_start(algorithm))
    with LiveTensorCounter(model.parameters()) as alive:
        first = next(reports).state
    gc.collect()
    loaded.reset_peak()
    began = process_time()
    second = next(reports).state
    seconds = second.seconds - first.seconds if loaded.gpu else process_time() - began
    return {
        "seconds": seconds,
        "tokens": second.tokens_written - first.tokens_written,
        "above load": loaded.peak() - loaded.start,
        "whole": loaded.peak() - loaded.nothing,
        "tensors": alive.peak,
        "trained": sum(p.numel() for _, p in policy.trainable()),
    }


class Meter:
    """Memory in bytes, on a GPU as torch allocates it and on a CPU as the kernel counts what is resident."""

    nothing = 0
    """Before the model was loaded; set by the process as it begins."""

    def __init__(self, device: str) -> None:
        self.gpu = device == "cuda"
        self.start = torch.cuda.memory_allocated() if self.gpu else resident_memory()

    def reset_peak(self) -> None:
        """What follows has a peak of its own."""
        if self.gpu:
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> int:
        """The most there was."""
        return torch.cuda.max_memory_allocated() if self.gpu else resident_memory(peak=True)


def fresh(method: str, folder: Path, given: argparse.Namespace) -> dict[str, float]:
    """The measurement in a process of its own, whose freed memory goes back to the system at once."""
    command = [sys.executable, __file__, "--method", method, "--folder", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads), "MALLOC_MMAP_THRESHOLD_": str(MIB // 4)}
    command += [*["--gpu"] * given.gpu, *["--rows"] * given.rows]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(given: argparse.Namespace) -> None:
    """Print one line for each method, and its ratios to GRPO's."""
    size = GEMMA_2B if given.gpu else SMALL
    print(json.dumps(asdict(size)))
    found: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    with tempfile.TemporaryDirectory() as folder:
        write_model(size, Path(folder))
        for _ in range(given.rounds):
            for method in METHODS:
                found[method].append(fresh(method, Path(folder), given))
    middle = {
        method: {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        for method, runs in found.items()
    }
    base = middle["grpo"]
    for method, now in middle.items():
        memory = "  ".join(
            f"{name} {now[name] / MIB:8.1f} MiB x {now[name] / base[name]:.3f}"
            for name in ("above load", "tensors", "whole")
        )
        print(
            f"{method:21} {memory}  seconds {now['seconds']:.2f} x {now['seconds'] / base['seconds']:.2f}  "
            f"tokens {now['tokens']:.0f}  trained {now['trained'] / 1e6:.2f} M"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", action="store_true", help="the size of Gemma 2B, on a GPU")
    parser.add_argument("--rows", action="store_true", help="microbatches of as many answers, not tokens")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is measured; the median is shown")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--method", choices=METHODS, help="measure this one, in this process")
    parser.add_argument("--folder", type=Path, help="where its model is")
    given = parser.parse_args()
    if given.method:
        device = "cuda" if given.gpu else "cpu"
        Meter.nothing = 0 if given.gpu else resident_memory()
        size = GEMMA_2B if given.gpu else SMALL
        print(json.dumps(measure(given.method, size, given.folder, device, given.rows)))
    else:
        main(given)
