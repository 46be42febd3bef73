"""AdamW with warm-up, decay and gradient clipping; the learning rate is a pure function of the step count."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_

from alignbench.core.field_types import Fraction, Momentum, NonNegative, Positive, Size


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101, with warm-up, decay and gradient clipping."""

    learning_rate: Positive = 5e-5
    """Learning rate after the warm-up."""
    beta1: Momentum = 0.9
    """Decay rate of the first moment."""
    beta2: Momentum = 0.99
    """Decay rate of the second moment."""
    eps: Positive = 1e-8
    """Added to the root of the second moment."""
    weight_decay: NonNegative = 0.0
    """Decoupled weight decay."""
    warmup_steps: Size = 10
    """Optimizer steps of linear warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Schedule after the warm-up."""
    final_fraction: Fraction = 0.1
    """Final learning rate of a decaying schedule, as a fraction of `learning_rate`."""
    max_grad_norm: Positive = 1.0
    """Maximum gradient norm; larger gradients are scaled down to it."""

    def scale(self, step: int, total: int) -> float:
        """The learning rate as a fraction of `learning_rate` at optimizer step `step` (from 0) of `total`."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return 1.0
        progress = min((step - self.warmup_steps) / max(total - self.warmup_steps, 1), 1.0)
        left = 1 - progress if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
        return self.final_fraction + (1 - self.final_fraction) * left


class Optimizer:
    """One AdamW over several parameter groups, each with its own learning rate."""

    def __init__(
        self,
        groups: Sequence[tuple[Iterable[Parameter], float]],
        settings: AdamW,
        total_steps: int,
        *,
        apart: bool = False,
    ) -> None:
        """With `apart`, the gradient of each group is clipped separately, independent of the losses of other groups."""
        self.settings, self.total_steps, self.apart = settings, total_steps, apart
        self.rates = [rate for _, rate in groups]
        self.groups = [list(parameters) for parameters, _ in groups]
        self.parameters = [p for group in self.groups for p in group]
        self.adamw = torch.optim.AdamW(
            [{"params": group} for group in self.groups],
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def clip(self) -> float:
        """Clip the gradient; returns its norm before clipping, over all groups."""
        parts = self.groups if self.apart else [self.parameters]
        return math.hypot(*(float(clip_grad_norm_(part, self.settings.max_grad_norm)) for part in parts))

    def step(self, done: int, share: float = 1.0) -> float:
        """Optimizer step number `done`, with `share` of the scheduled learning rate; returns the learning rate."""
        scale = share * self.settings.scale(done, self.total_steps)
        for group, rate in zip(self.adamw.param_groups, self.rates, strict=True):
            group["lr"] = rate * scale
        self.adamw.step()
        self.clear()
        return self.rates[0] * scale

    def clear(self) -> None:
        """Clear the gradients."""
        for parameter in self.parameters:
            parameter.grad = None
