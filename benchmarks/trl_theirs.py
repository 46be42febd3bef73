"""The TRL side of the comparison: GRPOTrainer with the same settings, its generation and scoring timed."""

import tempfile
from time import perf_counter
from typing import Any, Protocol

import torch
from datasets import Dataset
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from trl import GRPOConfig, GRPOTrainer

from alignbench.models.policy import CausalPolicy
from alignbench.rewards import extract
from benchmarks.trl_setting import (
    BETA1,
    BETA2,
    CLIP,
    KL,
    LEARNING_RATE,
    WARMUP,
    Setting,
    StepClock,
    command_line,
    load_with_transformers,
    stream,
)


class Clock(Protocol):
    """Receives the timing of each step."""

    def step(self, *, rollout: float, score: float, update: float, tokens: int) -> None:
        """Add a step: seconds of its parts, and the number of sampled tokens."""


class TimedTrainer(GRPOTrainer):  # type: ignore[misc,unused-ignore]  # trl is installed in its own environment only
    """The trainer, with the parts of each step timed."""

    clock: Clock
    started = rollout = both = 0.0
    tokens = 0

    def _generate_single_turn(self, *args: Any, **options: Any) -> Any:
        start = perf_counter()
        out = super()._generate_single_turn(*args, **options)
        self.rollout, self.tokens = perf_counter() - start, sum(map(len, out[0]))
        return out

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        if self.started:
            self.finish_step()
        self.started = perf_counter()
        out = super()._generate_and_score_completions(inputs)
        self.both = perf_counter() - self.started
        return out

    def finish_step(self) -> None:
        """Record the step; called when the next step starts and after training."""
        self.clock.step(
            rollout=self.rollout,
            score=self.both - self.rollout,
            update=perf_counter() - self.started - self.both,
            tokens=self.tokens,
        )


def reward(completions: list[str], reference: list[str], **_: object) -> list[float]:
    """Exact match, with the answer extraction of alignbench."""
    return [
        float(extract.same(extract.strict(text), extract.gold(gold)))
        for text, gold in zip(completions, reference, strict=True)
    ]


def config(setting: Setting, folder: str) -> GRPOConfig:
    """The same passes as alignbench: one each for old and reference log-probabilities; no checkpoints, no logs."""
    accumulated = setting.rollouts // setting.minibatches // setting.microbatch
    return GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=setting.microbatch,
        gradient_accumulation_steps=accumulated,
        steps_per_generation=accumulated * setting.minibatches,
        num_generations=setting.group_size,
        max_completion_length=setting.new_tokens,
        max_steps=(setting.steps + 1) * setting.minibatches,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        beta=KL,
        epsilon=CLIP,
        loss_type="dapo",
        scale_rewards="group",
        num_iterations=1,
        max_grad_norm=1.0,
        shuffle_dataset=False,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=0,
    )


def main() -> None:
    """Run the steps of a setting and print their timing."""
    started, (setting, folder) = perf_counter(), command_line()
    model, text = load_with_transformers(folder)
    batches = stream(setting, text).after(0)
    rows = [row for _ in range(setting.steps + 1) for row in next(batches).rows]
    dataset = Dataset.from_list([{"prompt": row["prompt"], "reference": str(row["reference"])} for row in rows])
    optimizer = AdamW(model.parameters(), lr=LEARNING_RATE, betas=(BETA1, BETA2), weight_decay=0.0)
    schedule = LambdaLR(optimizer, lambda step: min((step + 1) / WARMUP, 1.0))
    with tempfile.TemporaryDirectory() as scratch:
        torch.manual_seed(0)
        trainer = TimedTrainer(
            model=model,
            reward_funcs=reward,
            args=config(setting, scratch),
            train_dataset=dataset,
            processing_class=text.tokenizer,
            optimizers=(optimizer, schedule),
        )
        trainer.clock = clock = StepClock(setting, model.state_dict)
        trainer.train()
        trainer.finish_step()
    clock.print_result(CausalPolicy(model, text), started)


if __name__ == "__main__":
    main()
