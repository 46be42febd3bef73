"""A step on one GPU in the shapes of real models, against its floors, generate and TRL.

    python -m benchmarks.gpu [--only qwen2.5-0.5b/bf16/grpo] [--write FILE] [--minutes 9]
    python -m benchmarks.gpu --compile                                  or --liger: with hardware.compile or .liger
    python -m benchmarks.gpu --device cpu --shapes tiny                 tries it anywhere, in seconds

Needs torch, transformers and peft, beside them jaxtyping and annotated-types, which are plain Python, and this folder
on PYTHONPATH; no hub. Weights are random, under a LoRA adapter of rank 16; cells in 4 bits are left out where
bitsandbytes is missing, and TRL where trl is. A step has 32 answers, K=8 to each of 4 prompts for GRPO and one to each
of 32 for PPO, as its option has it. Torch's deterministic algorithms, which a run asks for unless told otherwise, are
off. What would not end within the minutes is left out, and said to be.
"""

import argparse
import gc
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from alignbench.algorithms.grpo import GRPO
from alignbench.algorithms.ppo import PPO
from alignbench.core.errors import UserError
from alignbench.engine.checks import Invariants
from alignbench.generation.sampler import Sampler
from alignbench.generation.shared_prefix_decoding import supports_shared_prefix
from alignbench.kernels.hardware import Hardware, resident_memory
from alignbench.models import critic as critics
from alignbench.models.loading import Lora, Pretrained
from alignbench.models.tiny import tiny_tokenizer
from benchmarks.gpu_page import Alone, Found, say, tell, write
from benchmarks.lower_bound import floors
from benchmarks.memory import GEMMA_2B, Meter
from benchmarks.workload import Clocked, Endless, Load, loop, wait

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
    "full": Load(groups=4, prompt=512, answer=512, microbatch=8),
    "tiny": Load(groups=2, prompt=12, answer=8, microbatch=8),
}
METHODS = {"grpo": GRPO(), "ppo": PPO()}
FORMATS = {"bf16": "none", "nf4": "nf4"}
WARM = 4
"""Tokens of the answers in a first step, which loads kernels and is not counted."""
MARGIN = 1.5
"""A cell is begun while there is so many times the time that the longest before it took."""
SHORT = 4
"""Sampler and generate are compared on answers of so small a share of the tokens."""


@dataclass(frozen=True)
class Machine:
    """Where it runs, and how much."""

    device: str
    shapes: str
    hardware: Hardware = Hardware()
    """Whether models are compiled, or have Liger's kernels."""

    @property
    def load(self) -> Load:
        """What a step of GRPO has to do."""
        return LOADS[self.shapes]

    def write_model(self, shape: str, folder: Path) -> None:
        """Random weights of that shape and a tokenizer of bytes, as save_pretrained writes them."""
        from transformers import AutoConfig, AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        config = AutoConfig.for_model(**SHAPES[self.shapes][shape], bos_token_id=None, eos_token_id=1, pad_token_id=0)
        torch.manual_seed(0)
        with torch.device(self.device):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model.save_pretrained(folder)
        tiny_tokenizer(["1 + 2"], 258).save_pretrained(folder)

    def policy(self, folder: Path, form: str, critic: Any = None) -> Clocked:
        """The model in that form under a new adapter, its answers without end."""
        source = Pretrained(name="gpu", path=str(folder), dtype="bfloat16", quantization=FORMATS[form], lora=Lora())
        model, text = source.load(texts=(), start=None, device=self.device, seed=0)
        self.hardware.apply_kernels(model)
        value = critic and critics.make_critic(model, critic, seed=0)
        policy = Clocked(model, Endless(text.tokenizer, chat=False, context=text.context), critic=value)
        policy.freeze_reference()
        return policy


def measure(name: str, machine: Machine, folder: Path) -> Found:
    """One step, after a short one that warms up."""
    _, form, method = name.split("/")
    algorithm, load = METHODS[method], machine.load
    if algorithm.group_size == 1:
        load = replace(load, groups=load.answers, group=1)
    meter = Meter(machine.device)
    policy = machine.policy(folder, form, algorithm.critic)
    invariants = Invariants(weights_moved="off", first_ratio="warn", ratio_tolerance=0.5)
    next(loop(policy, algorithm, replace(load, answer=min(WARM, load.answer)), invariants).steps())
    run = loop(policy, algorithm, load, invariants)
    clear()
    meter.reset_peak()
    step = next(run.steps())
    peak = meter.peak() - meter.nothing
    return Found(
        name=name,
        step=step,
        tokens=load.answers * load.answer,
        peak=peak,
        floor=floors(policy, load, run.reads),
        shared=policy.shares_prompts,
        grouped=supports_shared_prefix(policy, load.prompt + load.answer),
        alone=alone(policy, load) if method == "grpo" else None,
    )


def alone(policy: Clocked, load: Load) -> Alone:
    """Tokens in a second of our sampler and of generate, from the same prompts."""
    short, prompts = max(load.answer // SHORT, 1), next(load.stream(policy.text).after(0))
    sampler = Sampler(policy=policy, max_new_tokens=short, temperature=1.0)
    generate(policy, prompts.tokens, load.group, 2)
    work = {
        "ours": partial(sampler, prompts, load.group, 0),
        "generate": partial(generate, policy, prompts.tokens, load.group, short),
    }
    found = {}
    for name, draw in work.items():
        start = perf_counter()
        draw()
        wait(policy.device)
        found[name] = load.answers * short / (perf_counter() - start)
    return Alone(**found)


@torch.no_grad()
def generate(policy: Clocked, prompts: torch.Tensor, group: int, tokens: int) -> None:
    """Sample so many tokens with transformers; all prompts have the same length."""
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


def clear() -> None:
    """Give back what nobody holds."""
    gc.collect()
    torch.cuda.empty_cache()


def cells(machine: Machine, only: str) -> list[str]:
    """The names of all cells that begin as asked for."""
    names = [f"{shape}/{form}/{method}" for shape in SHAPES[machine.shapes] for form in FORMATS for method in METHODS]
    return [name for name in names if name.startswith(only)]


def found(machine: Machine, names: list[str], until: float) -> Iterator[Found]:
    """Each cell for which there is time, a model written once for all of its own."""
    longest = 0.0
    for shape in dict.fromkeys(name.split("/")[0] for name in names):
        with tempfile.TemporaryDirectory() as folder:
            machine.write_model(shape, Path(folder))
            for name in (name for name in names if name.startswith(f"{shape}/")):
                start = perf_counter()
                if start + MARGIN * longest > until:
                    say(f"{name}: left out, for the time is up")
                    continue
                clear()
                try:
                    cell = measure(name, machine, Path(folder))
                    yield cell if not name.endswith("/grpo") else replace(cell, trl=against_trl(name, machine, folder))
                except (UserError, torch.OutOfMemoryError) as error:
                    say(f"{name}: left out, {error}")
                longest = max(longest, perf_counter() - start)


def against_trl(name: str, machine: Machine, folder: str) -> dict[str, float] | None:
    """Seconds of a step of TRL from the same model, where it is installed."""
    if find_spec("trl") is None:
        return None
    from benchmarks.gpu_trl import step  # here, because it imports trl

    clear()
    policy = replace(machine, hardware=Hardware()).policy(Path(folder), name.split("/")[1])
    return step(policy.model, policy.text.tokenizer, machine.load, machine.device)


def main(given: argparse.Namespace) -> list[Found]:
    """Measure, print each cell as it is done, and write all where asked."""
    hardware, start = Hardware(device=given.device, compile=given.compile, liger=given.liger), perf_counter()
    machine = Machine(given.device, given.shapes, hardware)
    hardware.require()
    Meter.nothing = 0 if given.device == "cuda" else resident_memory()
    names = cells(machine, given.only)
    if not names:
        raise SystemExit(f"--only {given.only}: no such cell; there are {', '.join(cells(machine, ''))}")
    if find_spec("trl") is None:
        say("trl is not installed: nothing is compared with it")
    done = []
    for cell in found(machine, names, start + 60 * given.minutes):
        done.append(cell)
        say(f"{tell(cell)} ({perf_counter() - start:.0f} s so far)")
    write(done, machine.load, given.device, given.write)
    return done


def words(typed: list[str] | None = None) -> argparse.Namespace:
    """What was typed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--shapes", choices=list(SHAPES), default="full")
    parser.add_argument("--compile", action="store_true", help="with hardware.compile=true")
    parser.add_argument("--liger", action="store_true", help="with hardware.liger=true")
    parser.add_argument("--only", default="", help="a cell such as qwen2.5-0.5b/bf16/grpo, or how their names begin")
    parser.add_argument("--minutes", type=float, default=9, help="no cell is begun that would not end within them")
    parser.add_argument("--write", type=Path, help="where the page goes")
    return parser.parse_args(typed)


if __name__ == "__main__":
    main(words())
