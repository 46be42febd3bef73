"""Time and memory of a step on one GPU with the shapes of real models, against lower bounds, generate and TRL.

    python -m benchmarks.gpu [--only qwen2.5-0.5b/bf16/grpo] [--write FILE] [--minutes 9]
    python -m benchmarks.gpu --compile                                  or --liger: hardware.compile or hardware.liger
    python -m benchmarks.gpu --device cpu --shapes tiny                 a trial on any machine, in seconds

Needs torch, transformers, peft, jaxtyping, annotated-types and the checkout on PYTHONPATH; no network. Weights are
random, with a LoRA adapter of rank 16. Cells in 4 bits are skipped without bitsandbytes, TRL without trl. A step has 32
responses: K=8 to each of 4 prompts for GRPO, one to each of 32 prompts for PPO. Torch's deterministic algorithms, the
default of a run, are off. Cells that would not finish within --minutes are skipped with a message.
"""

import argparse
import gc
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import torch

from alignbench.algorithms.grpo import GRPO
from alignbench.algorithms.ppo import PPO
from alignbench.core.errors import UserError
from alignbench.core.protocols import Algorithm, Critic
from alignbench.engine.checks import Invariants
from alignbench.generation.sampler import Sampler
from alignbench.generation.shared_prefix_decoding import supports_shared_prefix
from alignbench.kernels.hardware import Hardware, resident_memory
from alignbench.models.loading import Lora, Pretrained
from alignbench.models.policy import CausalPolicy
from alignbench.models.tiny import tiny_tokenizer
from benchmarks.gpu_page import CellResult, SamplerSpeed, describe, write
from benchmarks.lower_bound import floors
from benchmarks.memory import GEMMA_2B, MemoryMeter
from benchmarks.page import print_line
from benchmarks.workload import EndlessText, Load, SynchronizedPolicy, build_policy, build_timed_loop, synchronize

QWEN = {
    "model_type": "qwen2",
    "vocab_size": 151_936,
    "tie_word_embeddings": True,
    "rope_theta": 1e6,
    "max_position_embeddings": 32_768,
}
SHAPES: dict[str, dict[str, dict[str, Any]]] = {
    "full": {
        "qwen2.5-0.5b": QWEN
        | {
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
        },
        "gemma-2b": GEMMA_2B.model | {"model_type": "gemma"},
        "qwen2.5-3b": QWEN
        | {
            "hidden_size": 2048,
            "intermediate_size": 11_008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
        },
    },
    "tiny": {
        "qwen2": QWEN
        | {
            "vocab_size": 300,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        },
        "gemma": {
            "model_type": "gemma",
            "vocab_size": 300,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 16,
        },
    },
}
LOADS = {
    "full": Load(prompts=4, prompt_tokens=512, response_tokens=512, microbatch=8),
    "tiny": Load(prompts=2, prompt_tokens=12, response_tokens=8, microbatch=8),
}
METHODS: dict[str, Algorithm] = {"grpo": GRPO(), "ppo": PPO()}
FORMATS: dict[str, Literal["none", "nf4"]] = {"bf16": "none", "nf4": "nf4"}
WARM_UP_TOKENS = 4
"""Response length of the warm-up step, which loads kernels and is not measured."""
MARGIN = 1.5
"""A cell is started only if the remaining time is this multiple of the longest cell so far."""
SHORT = 4
"""Sampler and generate are compared on responses of 1 / SHORT of the tokens."""


@dataclass(frozen=True)
class Machine:
    """The device, and the set of shapes."""

    device: str
    shapes: str
    hardware: Hardware = Hardware()
    """Selects torch.compile or Liger's kernels."""

    @property
    def load(self) -> Load:
        """The load of a GRPO step."""
        return LOADS[self.shapes]

    def write_model(self, shape: str, folder: Path) -> None:
        """Save a model of this shape with random weights, and a tokenizer of bytes."""
        from transformers import AutoConfig, AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        config = AutoConfig.for_model(**SHAPES[self.shapes][shape], bos_token_id=None, eos_token_id=1, pad_token_id=0)
        torch.manual_seed(0)
        with torch.device(self.device):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model.save_pretrained(folder)
        tiny_tokenizer(["1 + 2"], 258).save_pretrained(folder)

    def policy(self, folder: Path, form: str, critic: Critic | None = None) -> CausalPolicy:
        """The model in a weight format with a new adapter; its responses never end early."""
        source = Pretrained(name="gpu", path=str(folder), dtype="bfloat16", quantization=FORMATS[form], lora=Lora())
        model, text = source.load(texts=(), start=None, device=self.device, seed=0)
        self.hardware.apply_kernels(model)
        endless = EndlessText(text.tokenizer, chat=False, context=text.context)
        return build_policy(model, endless, critic, SynchronizedPolicy)


def measure(name: str, machine: Machine, folder: Path) -> CellResult:
    """Measure one step after a short warm-up step."""
    _, form, method = name.split("/")
    algorithm, load = METHODS[method], machine.load
    if algorithm.group_size == 1:
        load = replace(load, prompts=load.responses, group_size=1)
    meter = MemoryMeter(machine.device)
    policy = machine.policy(folder, form, algorithm.critic)
    invariants = Invariants(weights_moved="off", first_ratio="warn", ratio_tolerance=0.5)
    short = replace(load, response_tokens=min(WARM_UP_TOKENS, load.response_tokens))
    next(build_timed_loop(policy, algorithm, short, invariants).steps())
    run = build_timed_loop(policy, algorithm, load, invariants)
    free_memory()
    meter.reset_peak()
    step = next(run.steps())
    peak = meter.peak() - meter.baseline
    return CellResult(
        name=name,
        step=step,
        tokens=load.responses * load.response_tokens,
        peak=peak,
        floor=floors(policy, load, run.scoring_passes),
        shares_prompts=policy.shares_prompts,
        shares_prefix=supports_shared_prefix(policy, load.prompt_tokens + load.response_tokens),
        sampler=compare_samplers(policy, load) if method == "grpo" else None,
    )


def compare_samplers(policy: CausalPolicy, load: Load) -> SamplerSpeed:
    """Tokens per second of the sampler and of generate, on the same prompts."""
    short, prompts = max(load.response_tokens // SHORT, 1), next(load.stream(policy.text).after(0))
    sampler = Sampler(policy=policy, max_new_tokens=short, temperature=1.0)
    generate(policy, prompts.tokens, load.group_size, 2)
    work: dict[str, Callable[[], object]] = {
        "ours": partial(sampler, prompts, load.group_size, 0),
        "generate": partial(generate, policy, prompts.tokens, load.group_size, short),
    }
    speeds = {}
    for name, sample in work.items():
        start = perf_counter()
        sample()
        synchronize(policy.device)
        speeds[name] = load.responses * short / (perf_counter() - start)
    return SamplerSpeed(**speeds)


@torch.no_grad()
def generate(policy: CausalPolicy, prompts: torch.Tensor, group: int, tokens: int) -> None:
    """Sample `tokens` tokens per response with transformers; all prompts have the same length."""
    ids = prompts.repeat_interleave(group, 0).to(policy.device)
    policy.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        min_new_tokens=tokens,
        max_new_tokens=tokens,
        pad_token_id=policy.text.pad,
    )


def free_memory() -> None:
    """Return unused memory to the device."""
    gc.collect()
    torch.cuda.empty_cache()


def cells(machine: Machine, only: str) -> list[str]:
    """The names of all cells that start with `only`."""
    names = [f"{shape}/{form}/{method}" for shape in SHAPES[machine.shapes] for form in FORMATS for method in METHODS]
    return [name for name in names if name.startswith(only)]


def measure_all(machine: Machine, names: list[str], deadline: float) -> Iterator[CellResult]:
    """Measure the cells for which there is time; each model is written once for all its cells."""
    longest = 0.0
    for shape in dict.fromkeys(name.split("/")[0] for name in names):
        with tempfile.TemporaryDirectory() as folder:
            machine.write_model(shape, Path(folder))
            for name in (name for name in names if name.startswith(f"{shape}/")):
                start = perf_counter()
                if start + MARGIN * longest > deadline:
                    print_line(f"{name}: skipped, not enough time left")
                    continue
                free_memory()
                try:
                    cell = measure(name, machine, Path(folder))
                    yield replace(cell, trl=time_trl(name, machine, folder)) if name.endswith("/grpo") else cell
                except (UserError, torch.OutOfMemoryError) as error:
                    print_line(f"{name}: skipped, {error}")
                longest = max(longest, perf_counter() - start)


def time_trl(name: str, machine: Machine, folder: str) -> dict[str, float] | None:
    """Seconds of each part of a step of TRL with the same model; None if trl is not installed."""
    if find_spec("trl") is None:
        return None
    from benchmarks.gpu_trl import step  # imports trl

    free_memory()
    policy = replace(machine, hardware=Hardware()).policy(Path(folder), name.split("/")[1])
    return step(policy.model, policy.text.tokenizer, machine.load, machine.device)


def main(args: argparse.Namespace) -> list[CellResult]:
    """Measure and print each cell, then print the page, and write it with --write."""
    hardware, start = Hardware(device=args.device, compile=args.compile, liger=args.liger), perf_counter()
    machine = Machine(args.device, args.shapes, hardware)
    hardware.require()
    MemoryMeter.baseline = 0 if args.device == "cuda" else resident_memory()
    names = cells(machine, args.only)
    if not names:
        raise SystemExit(f"--only {args.only}: no such cell; the cells are {', '.join(cells(machine, ''))}")
    if find_spec("trl") is None:
        print_line("trl is not installed: no comparison with TRL")
    results = []
    for cell in measure_all(machine, names, start + 60 * args.minutes):
        results.append(cell)
        print_line(f"{describe(cell)} ({perf_counter() - start:.0f} s elapsed)")
    write(results, machine.load, args.device, args.write)
    return results


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--shapes", choices=list(SHAPES), default="full")
    parser.add_argument("--compile", action="store_true", help="with hardware.compile=true")
    parser.add_argument("--liger", action="store_true", help="with hardware.liger=true")
    parser.add_argument("--only", default="", help="a cell such as qwen2.5-0.5b/bf16/grpo, or a prefix of cell names")
    parser.add_argument("--minutes", type=float, default=9, help="time limit; cells that would exceed it are skipped")
    parser.add_argument("--write", type=Path, help="file to write the page to")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(parse_args())
