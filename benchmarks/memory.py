"""Peak memory and time of a step of GRPO, and of PPO with each kind of critic, at equal completions on one model.

    python -m benchmarks.memory [--gpu] [--rows] [--rounds 1] [--threads 1]

The model has random weights in Gemma's architecture, a 4-bit base and a LoRA adapter of rank 16; --gpu uses the size of
Gemma 2B. By default a microbatch holds the same number of tokens for every method (GRPO processes a prompt once per
group); with --rows it holds the same number of responses. Each method runs in a new process; its second step is
measured. "above load" is the peak above the loaded model, "whole" includes the model: torch.cuda.max_memory_allocated
on a GPU, resident memory on a CPU. "tensors" are the bytes of live tensors above the model, counted in the first step
because counting is slow. Seconds are wall time on a GPU and process time on a CPU.
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

import torch

from alignbench.algorithms.grpo import GRPO
from alignbench.algorithms.ppo import PPO
from alignbench.core.batches import Row
from alignbench.core.protocols import Algorithm, Critic
from alignbench.data.prompt_stream import PromptStream
from alignbench.engine.checks import Invariants
from alignbench.engine.run_state import RunState
from alignbench.kernels.hardware import resident_memory
from alignbench.models.loading import Lora, Pretrained
from alignbench.models.tiny import tiny_tokenizer
from alignbench.planning.memory import LiveTensorCounter
from alignbench.stages.online import RL
from benchmarks.workload import TokenSumReward, build_policy

ROOT = Path(__file__).parents[1]
MIB = 1 << 20
METHODS: dict[str, Algorithm] = {
    "grpo": GRPO(group_size=6),
    "ppo, shared critic": PPO(),
    "ppo, separate critic": PPO(critic=Critic(trunk="separate")),
}


@dataclass(frozen=True)
class Size:
    """Sizes of the model and of a step."""

    model: dict[str, int]
    completions: int
    prompt_tokens: int
    new_tokens: int
    microbatch_size: int
    """Responses in a microbatch with --rows."""
    tokens_per_microbatch: int
    """Tokens of one GRPO group."""


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


def write_model(size: Size, folder: Path) -> None:
    """Save a model of this size with random weights, and a tokenizer of bytes."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = tiny_tokenizer(["1 + 2 = 3"], 258)
    torch.manual_seed(0)
    config = AutoConfig.for_model("gemma", **size.model, bos_token_id=None, eos_token_id=1, pad_token_id=0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure(method: str, size: Size, folder: Path, device: str, rows: bool) -> dict[str, float]:
    """Seconds, tokens and memory in bytes of the second step of a new run of the model in `folder`."""
    algorithm = METHODS[method]
    source = Pretrained(name="gemma", path=str(folder), quantization="nf4", lora=Lora(rank=16))
    model, text = source.load(texts=(), start=None, device=device, seed=0)
    gc.collect()
    meter = MemoryMeter(device)
    policy = build_policy(model, text, algorithm.critic)
    rl = RL(steps=2, rollouts_per_step=size.completions, max_new_tokens=size.new_tokens, minibatches=2)
    engine = rl.build_loop(
        policy,
        TokenSumReward(),
        algorithm,
        0,
        size.microbatch_size,
        Invariants(first_ratio="off"),
        None if rows else size.tokens_per_microbatch,
    )
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(2, 258, (size.completions, size.prompt_tokens), generator=generator).tolist()
    examples: list[Row] = [{"id": i, "prompt": str(i)} for i in range(size.completions)]
    stream = PromptStream(
        examples, lambda name: prompts[int(name)], rl.prompts_per_step(algorithm), 0, text.pad, size.prompt_tokens
    )
    reports = rl.run(engine, stream, RunState.at_start(algorithm))
    with LiveTensorCounter(model.parameters()) as alive:
        first = next(reports).state
    gc.collect()
    meter.reset_peak()
    start = process_time()
    second = next(reports).state
    seconds = second.seconds - first.seconds if meter.gpu else process_time() - start
    return {
        "seconds": seconds,
        "tokens": second.tokens_written - first.tokens_written,
        "above load": meter.peak() - meter.loaded,
        "whole": meter.peak() - meter.baseline,
        "tensors": alive.peak,
        "trained": sum(p.numel() for _, p in policy.trainable()),
    }


class MemoryMeter:
    """Memory of this process in bytes: allocated by torch on a GPU, resident on a CPU."""

    baseline = 0
    """Memory before the model was loaded; set when the process starts."""

    def __init__(self, device: str) -> None:
        self.gpu = device == "cuda"
        self.loaded = torch.cuda.memory_allocated() if self.gpu else resident_memory()

    def reset_peak(self) -> None:
        """Start a new peak measurement."""
        if self.gpu:
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> int:
        """The peak since the last reset."""
        return torch.cuda.max_memory_allocated() if self.gpu else resident_memory(peak=True)


def measure_in_subprocess(method: str, folder: Path, args: argparse.Namespace) -> dict[str, float]:
    """Run `measure` in a new process, which returns freed memory to the system at once."""
    command = [sys.executable, "-m", "benchmarks.memory", "--method", method, "--folder", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "MALLOC_MMAP_THRESHOLD_": str(MIB // 4)}
    command += [*["--gpu"] * args.gpu, *["--rows"] * args.rows]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main(args: argparse.Namespace) -> None:
    """Print one line for each method, with its ratios to GRPO."""
    size = GEMMA_2B if args.gpu else SMALL
    print(json.dumps(asdict(size)))
    results: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    with tempfile.TemporaryDirectory() as folder:
        write_model(size, Path(folder))
        for _ in range(args.rounds):
            for method in METHODS:
                results[method].append(measure_in_subprocess(method, Path(folder), args))
    medians = {
        method: {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        for method, runs in results.items()
    }
    base = medians["grpo"]
    for method, result in medians.items():
        memory = "  ".join(
            f"{name} {result[name] / MIB:8.1f} MiB x {result[name] / base[name]:.3f}"
            for name in ("above load", "tensors", "whole")
        )
        print(
            f"{method:21} {memory}  seconds {result['seconds']:.2f} x {result['seconds'] / base['seconds']:.2f}  "
            f"tokens {result['tokens']:.0f}  trained {result['trained'] / 1e6:.2f} M"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true", help="use a GPU and the size of Gemma 2B")
    parser.add_argument("--rows", action="store_true", help="equal responses per microbatch, not equal tokens")
    parser.add_argument("--rounds", type=int, default=1, help="measurements per method; the median is printed")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--method", choices=METHODS, help="measure only this method, in this process")
    parser.add_argument("--folder", type=Path, help="the folder of the model, with --method")
    args = parser.parse_args()
    if args.method:
        device = "cuda" if args.gpu else "cpu"
        MemoryMeter.baseline = 0 if args.gpu else resident_memory()
        size = GEMMA_2B if args.gpu else SMALL
        print(json.dumps(measure(args.method, size, args.folder, device, args.rows)))
    else:
        main(args)
