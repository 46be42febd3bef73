"""Reward shaping: normalizes the scores of a step and subtracts the penalty for truncated responses."""

from dataclasses import replace

import torch

from alignbench.core.batches import Scored
from alignbench.core.protocols import Normalizer, RunningStats


def shape_rewards(
    scored: Scored, normalizer: Normalizer | None, stats: RunningStats | None, missing_eos_penalty: float
) -> tuple[Scored, RunningStats | None]:
    """Normalize the scores, then subtract the penalty from those of truncated rollouts.

    Returns the shaped rollouts and the running statistics after them. The penalty is on the scale of the normalized
    scores: among rollouts of equal score a truncated one ranks last. It is logged as the component `missing_eos`.
    """
    scores, components = scored.scores, scored.components
    if normalizer is not None:
        scores, stats = normalizer(scores, stats)
    if missing_eos_penalty:
        penalty = -missing_eos_penalty * scored.truncated.to(scores)
        scores, components = scores + penalty, {**(components or {"score": scores}), "missing_eos": penalty}
    return replace(scored, scores=scores.to(torch.float32), components=components), stats
