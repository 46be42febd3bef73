"""Logits filters: restrict sampling to the most probable tokens (top-k, top-p, min-p) and renormalize."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval
from torch import Tensor

from alignbench.core.field_types import Momentum, Size
from alignbench.kernels.chunked_lm_head import MASKED_LOGIT

Share = Annotated[float, Interval(gt=0, le=1)]
"""Above 0 and at most 1."""


@dataclass(frozen=True, kw_only=True)
class LogitsFilter:
    """top-k, then top-p, then min-p, as in transformers; probabilities are renormalized after each.

    Filtered answers are samples of mu = pi / Z on the kept tokens, where Z is their total probability under pi; the
    sampler reports log mu. To train pi on them, each token is weighted by pi / mu = Z (rl.importance_cap).
    """

    top_k: Size = 0
    """Keep the k most probable tokens, and those tied with the last of them; 0 keeps all."""
    top_p: Share = 1.0
    """Keep the fewest most probable tokens whose probabilities sum to at least this: Holtzman et al. 2020,
    https://arxiv.org/abs/1904.09751"""
    min_p: Momentum = 0.0
    """Keep tokens with at least this share of the largest probability: Nguyen et al. 2024,
    https://arxiv.org/abs/2407.01082"""

    def __call__(self, logp: Tensor) -> Tensor:
        """log mu [n, v] from log pi [n, v]."""
        if 0 < self.top_k < logp.shape[-1]:
            logp = _renormalize(logp, logp >= logp.topk(self.top_k).values[:, -1:])
        if self.top_p < 1:
            ranked, order = logp.sort(descending=True, stable=True)
            before = ranked.exp().cumsum(-1) - ranked.exp()
            logp = _renormalize(logp, (before < self.top_p).scatter(-1, order, before < self.top_p))
        if self.min_p:
            logp = _renormalize(logp, logp.exp() >= self.min_p * logp.max(-1, keepdim=True).values.exp())
        return logp


def _renormalize(logp: Tensor, kept: Tensor) -> Tensor:
    return logp.where(kept, MASKED_LOGIT).log_softmax(-1)
