"""Scored -> Scored: from what the scorer said to what is trained on."""

from dataclasses import replace

import torch

from alignbench.core.batches import Scored
from alignbench.core.protocols import Normalizer, RunningStats


def shape(
    scored: Scored, normalizer: Normalizer | None, moments: RunningStats | None, missing_eos_penalty: float
) -> tuple[Scored, RunningStats | None]:
    """Normalize the scores, then take the penalty off those of rollouts that did not end; and the moments after it.

    The penalty is subtracted, on the scale that is trained on: it orders rollouts of equal score and hides none. It is
    one more part of the score for those who look at the parts.
    """
    scores, components = scored.scores, scored.components
    if normalizer is not None:
        scores, moments = normalizer(scores, moments)
    if missing_eos_penalty:
        penalty = -missing_eos_penalty * scored.truncated.to(scores)
        scores, components = scores + penalty, {**(components or {"score": scores}), "missing_eos": penalty}
    return replace(scored, scores=scores.to(torch.float32), components=components), moments
