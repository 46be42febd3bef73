"""Fixtures of the reward tests: rollouts from texts, and rewards from the config."""

import pytest
import torch

from alignbench.commands import check_reward
from alignbench.core.batches import Rollouts


@pytest.fixture
def rollouts_for():
    """Rollouts of three tokens each with these texts and rows."""

    def make(texts, rows):
        n = len(texts)
        return Rollouts(
            prompts=torch.ones(n, 2, dtype=torch.long),
            prompt_lengths=torch.full((n,), 2),
            responses=torch.ones(n, 3, dtype=torch.long),
            mask=torch.ones(n, 3, dtype=torch.bool),
            group=torch.arange(n),
            logprobs=torch.zeros(n, 3),
            truncated=torch.zeros(n, dtype=torch.bool),
            texts=tuple(texts),
            rows=tuple(rows),
        )

    return make


@pytest.fixture
def option():
    """A reward of conf/reward, changed by overrides."""
    return lambda name, *words: check_reward.compose([f"reward={name}", *words])
