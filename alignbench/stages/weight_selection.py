"""Selects the weights a run ends with: the last ones, or the best on validation prompts within a KL bound."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from alignbench.core.errors import UserError
from alignbench.models.policy import CausalPolicy
from alignbench.stages.evaluate import Evaluate

Rank = tuple[bool, float]
"""Whether the KL is within its bound, and how good the weights are; the larger tuple is better."""


class BestWeights:
    """The best weights so far; part of each checkpoint, so that a resumed run selects among the same weights."""

    def __init__(self, settings: Evaluate) -> None:
        self.settings = settings
        self.step: int | None = None
        self._rank: Rank = (False, float("-inf"))
        self._weights: dict[str, Tensor] = {}

    def update(self, step: int, metrics: Mapping[str, float], policy: CausalPolicy) -> None:
        """Keep these weights if they are better than all earlier ones; of equal weights the first are kept."""
        if self.settings.select == "last" or "eval/kl_token" not in metrics:
            return
        rank = rank_weights(metrics, self.settings)
        if self.step is None or rank > self._rank:
            self.step, self._rank, self._weights = step, rank, policy.state()

    def restore(self, policy: CausalPolicy) -> None:
        """Load the best weights into the policy; with select=last it keeps its own."""
        if self.step is not None:
            policy.load(self._weights)

    @property
    def within_kl_bound(self) -> bool:
        """Whether any weights were within the KL bound."""
        return self._rank[0]

    def state(self) -> dict[str, Any]:
        """Plain values and tensors, for a checkpoint."""
        return {"step": self.step, "rank": list(self._rank), "weights": self._weights}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self.step, self._weights = saved["step"], saved["weights"]
        self._rank = (saved["rank"][0], saved["rank"][1])


def rank_weights(metrics: Mapping[str, float], settings: Evaluate) -> Rank:
    """Rank weights by their validation metrics: by `settings.select` within the KL bound, by the KL beyond it.

    Raises UserError when the metric to select by was not measured.
    """
    name, kl = f"eval/{settings.select}", metrics["eval/kl_token"]
    if name not in metrics:
        raise UserError(
            f"eval.select={settings.select} is not measured in this run; available: "
            f"{', '.join(sorted(name.removeprefix('eval/') for name in metrics if name.startswith('eval/')))}"
        )
    if settings.max_kl is not None and kl > settings.max_kl:
        return False, -kl
    return True, -metrics[name] if settings.select == "perplexity" else metrics[name]
