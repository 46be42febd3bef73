"""TRL's step at the same load as ours: the same adapter, prompts, reward and lengths."""

import tempfile
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOConfig

from benchmarks.trl_setting import KL
from benchmarks.trl_theirs import Timed
from benchmarks.workload import Load


class Last:
    """A clock that remembers the last step."""

    def step(self, *, tokens: int, **seconds: float) -> None:
        """What a step took, by part."""
        self.seconds = seconds


def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """A score of no meaning that differs from answer to answer."""
    return [float(sum(ids) % 7) for ids in completion_ids]


def config(load: Load, device: str, folder: str) -> GRPOConfig:
    """One step of ours: a rollout, and as many optimizer steps."""
    accumulated = max(load.answers // load.minibatches // load.microbatch, 1)
    return GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=min(load.microbatch, load.answers // load.minibatches),
        gradient_accumulation_steps=accumulated,
        steps_per_generation=accumulated * load.minibatches,
        num_generations=load.group,
        max_completion_length=load.answer,
        max_steps=load.minibatches,
        generation_kwargs={"min_new_tokens": load.answer},
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        beta=KL,
        num_iterations=1,
        gradient_checkpointing=False,
        bf16=device == "cuda",
        use_cpu=device == "cpu",
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=0,
        learning_rate=1e-9,
    )


def step(model: Any, tokenizer: Any, load: Load, device: str) -> dict[str, float]:
    """Seconds of each part of its step."""
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        trainer = Timed(
            model=model,
            reward_funcs=reward,
            args=config(load, device, folder),
            processing_class=tokenizer,
            train_dataset=Dataset.from_list([{"prompt": text} for text in load.texts()]),
        )
        trainer.clock = Last()
        trainer.train()
        trainer.close()
    return trainer.clock.seconds
