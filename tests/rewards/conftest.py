"""What the tests of the rewards share."""

import pytest
import torch

from alignbench.commands import check_reward as door
from alignbench.core.batches import Rollouts


@pytest.fixture
def rollouts_for():
    """Rollouts with given texts and rows; their tokens do not matter to a scorer."""

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
    """A reward as its YAML describes it, keys changed by words."""
    return lambda name, *words: door.compose([f"reward={name}", *words])
