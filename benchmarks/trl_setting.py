"""What both sides of the comparison with TRL share: model, tokenizer, prompts, reward and settings."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from alignbench.core.batches import Row
from alignbench.data.arithmetic import Arithmetic
from alignbench.data.prompt_stream import PromptStream, iterate_once
from alignbench.engine.checks import Invariants
from alignbench.engine.optimizer import AdamW
from alignbench.generation.sampler import Sampler
from alignbench.models.loading import Pretrained, Tiny, save
from alignbench.models.policy import CausalPolicy
from alignbench.models.text import Text
from alignbench.rewards.exact_match import ExactMatch
from alignbench.stages.sft import SFT

LEARNING_RATE, WARMUP, BETA1, BETA2, CLIP, KL = 5e-5, 10, 0.9, 0.99, 0.2, 0.02
HELD_OUT = 256


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One model and its training steps; the constants above hold for all."""

    name: str
    sizes: dict[str, Any]
    """Sizes of the built-in Llama model that differ from its defaults."""
    sft_steps: int
    """Steps of SFT before RL; 0 leaves the weights random."""
    prompts: int
    group_size: int
    new_tokens: int
    minibatches: int
    microbatch: int
    steps: int
    """Measured steps, after one warm-up step."""
    snapshot_every: int
    """Steps between snapshots whose held-out accuracy is reported; 0 takes none."""
    threads: int

    @property
    def rollouts(self) -> int:
        """Responses in a step."""
        return self.prompts * self.group_size


SETTINGS = {s.name: s for s in (
    Setting(name="0.5M", sizes={}, sft_steps=400, prompts=16, group_size=8, new_tokens=32, minibatches=2,
            microbatch=64, steps=30, snapshot_every=10, threads=1),
    Setting(name="30M", sizes={"hidden": 512, "layers": 9, "heads": 8, "intermediate": 1536}, sft_steps=0,
            prompts=2, group_size=8, new_tokens=32, minibatches=2, microbatch=8, steps=1, snapshot_every=0, threads=1),
)}  # fmt: skip


def data() -> Arithmetic:
    """The arithmetic problems of both sides."""
    return Arithmetic(train_rows=2000, validation_rows=HELD_OUT)


def make_model(setting: Setting, folder: Path) -> Path:
    """Save the initial model of both sides, once; returns its folder."""
    target = folder / f"{setting.name}-{setting.sft_steps}"
    if (target / "config.json").is_file():
        return target
    rows = data().demonstrations()
    model, text = replace(Tiny(dtype="float32"), **setting.sizes).load(
        texts=[row["prompt"] + row["completion"] for row in rows], start=None, device="cpu", seed=0
    )
    if setting.sft_steps:
        rates = AdamW(learning_rate=4e-3, weight_decay=0.01, warmup_steps=30, schedule="cosine")
        sft = SFT(steps=setting.sft_steps, optimizer=rates)
        for _ in sft.run(CausalPolicy(model, text), rows, 32, Invariants()):
            pass
    save(model, text, target)
    return target


def load(folder: Path) -> tuple[Any, Text]:
    """The model and its tokenizer in float32, as a run of alignbench loads them."""
    return Pretrained(name="comparison", path=str(folder), dtype="float32").load(
        texts=(), start=None, device="cpu", seed=0
    )


def load_with_transformers(folder: Path) -> tuple[Any, Text]:
    """The same model as transformers loads it, with torch's linear layers."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, Pretrained(name="comparison", path=str(folder)).load_text(())


def stream(setting: Setting, text: Text, prompts: int | None = None) -> PromptStream:
    """The prompts in the order of both sides, `prompts` at a time (None: those of a step)."""
    return PromptStream(data().prompts("train"), text.encode_prompt, prompts or setting.prompts, 0, text.pad, 256)


class StepClock:
    """Measurements of one side: seconds of each part of its steps, memory, and snapshots of the weights."""

    def __init__(self, setting: Setting, weights: Callable[[], dict[str, Tensor]]) -> None:
        self.setting, self.weights, self.steps = setting, weights, list[dict[str, float]]()
        self.snapshots = [(0.0, _copy(weights()))] if setting.snapshot_every else []
        self.memory, self.loaded = 0, resident("VmRSS")

    def step(self, **seconds: float) -> None:
        """Add a step: seconds of `rollout`, `score` and `update`, and the number of sampled `tokens`."""
        self.steps.append(seconds)
        every = self.setting.snapshot_every
        if every and len(self.steps) % every == 0:
            spent = sum(s["rollout"] + s["score"] + s["update"] for s in self.steps)
            self.snapshots.append((spent, _copy(self.weights())))
        self.memory = resident("VmHWM")

    def print_result(self, policy: CausalPolicy, started: float) -> None:
        """Print all as JSON; the accuracy of the snapshots is measured now and not timed."""
        curve = []
        for seconds, weights in self.snapshots:
            policy.model.load_state_dict(weights)
            curve.append((seconds, accuracy(policy, self.setting)))
        print(
            json.dumps(
                {
                    "steps": self.steps[1:],
                    "memory": self.memory,
                    "loaded": self.loaded,
                    "curve": curve,
                    "whole": perf_counter() - started,
                }
            )
        )


def accuracy(policy: CausalPolicy, setting: Setting) -> float:
    """Accuracy of greedy responses to the held-out problems."""
    policy.model.eval()
    rows: list[Row] = list(data().prompts("validation"))
    sampler = Sampler(policy=policy, max_new_tokens=setting.new_tokens, temperature=0.0)
    scores = [
        ExactMatch()(sampler(prompts, 1, 0)).total
        for prompts in iterate_once(rows, policy.text.encode_prompt, 256, policy.text.pad, 256)
    ]
    return float(torch.cat(scores).mean())


def resident(name: str) -> int:
    """VmRSS (current) or VmHWM (peak) of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def command_line() -> tuple[Setting, Path]:
    """The setting and the model folder from the command line of a side."""
    setting = SETTINGS[sys.argv[1]]
    torch.set_num_threads(setting.threads)
    return setting, Path(sys.argv[2])


def environment(setting: Setting) -> dict[str, str]:
    """Environment variables of the process of a side."""
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **quiet, "OMP_NUM_THREADS": str(setting.threads), "CUDA_VISIBLE_DEVICES": ""}


def _copy(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in weights.items()}
