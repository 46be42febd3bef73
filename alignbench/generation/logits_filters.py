"""Which tokens may be sampled at all: the likeliest, with their chances made whole again."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval
from torch import Tensor

from alignbench.core.field_types import Momentum, Size
from alignbench.kernels.chunked_lm_head import MASKED_LOGIT

Share = Annotated[float, Interval(gt=0, le=1)]
"""Above 0 and up to 1."""


@dataclass(frozen=True, kw_only=True)
class LogitsFilter:
    """One rule after the other, as in transformers; what is left is a distribution after each.

    Answers sampled so come from mu = pi / Z on the tokens that are left, where Z is their chance under pi, and log mu
    is what the sampler reports. To learn from them with pi, each token is weighed by pi / mu = Z: then every term
    of the loss is what pi makes of these tokens.
    """

    top_k: Size = 0
    """The k likeliest tokens, and those as likely as the last of them; 0 is all."""
    top_p: Share = 1.0
    """The fewest likeliest tokens whose chances sum up to this: Holtzman et al. 2020, https://arxiv.org/abs/1904.09751"""
    min_p: Momentum = 0.0
    """Tokens at least this times as likely as the likeliest: Nguyen et al. 2024, https://arxiv.org/abs/2407.01082"""

    def __call__(self, logp: Tensor) -> Tensor:
        """log mu [n, v] from log pi [n, v]."""
        if 0 < self.top_k < logp.shape[-1]:
            logp = _only(logp, logp >= logp.topk(self.top_k).values[:, -1:])
        if self.top_p < 1:
            ranked, order = logp.sort(descending=True, stable=True)
            before = ranked.exp().cumsum(-1) - ranked.exp()
            logp = _only(logp, (before < self.top_p).scatter(-1, order, before < self.top_p))
        if self.min_p:
            logp = _only(logp, logp.exp() >= self.min_p * logp.max(-1, keepdim=True).values.exp())
        return logp


def _only(logp: Tensor, left: Tensor) -> Tensor:
    return logp.where(left, MASKED_LOGIT).log_softmax(-1)
