"""A step of TRL at the load of the GPU benchmark: the same adapter, prompts, reward and lengths."""

import tempfile
from typing import Any

import torch
from datasets import Dataset
from trl import GRPOConfig

from benchmarks.trl_setting import KL
from benchmarks.trl_theirs import TimedTrainer
from benchmarks.workload import Load


class LastStep:
    """A clock that keeps the last step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def step(self, *, rollout: float, score: float, update: float, tokens: int) -> None:
        """Keep the seconds of each part."""
        self.seconds = {"rollout": rollout, "score": score, "update": update}


def reward(completion_ids: list[list[int]], **_: object) -> list[float]:
    """A reward without meaning that differs between responses."""
    return [float(sum(ids) % 7) for ids in completion_ids]


def config(load: Load, device: str, folder: str) -> GRPOConfig:
    """Settings of one rollout with the same number of optimizer steps."""
    accumulated = max(load.responses // load.minibatches // load.microbatch, 1)
    return GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=min(load.microbatch, load.responses // load.minibatches),
        gradient_accumulation_steps=accumulated,
        steps_per_generation=accumulated * load.minibatches,
        num_generations=load.group_size,
        max_completion_length=load.response_tokens,
        max_steps=load.minibatches,
        generation_kwargs={"min_new_tokens": load.response_tokens},
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
    """Seconds of each part of a step."""
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        trainer = TimedTrainer(
            model=model,
            reward_funcs=reward,
            args=config(load, device, folder),
            processing_class=tokenizer,
            train_dataset=Dataset.from_list([{"prompt": text} for text in load.texts()]),
        )
        trainer.clock = clock = LastStep()
        trainer.train()
        trainer.finish_step()
    return clock.seconds
