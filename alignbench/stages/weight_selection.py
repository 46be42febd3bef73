"""Which weights a run ends with: the last ones, or the best on validation prompts that stayed near the reference."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from alignbench.core.errors import UserError
from alignbench.models.policy import CausalPolicy
from alignbench.stages.evaluate import Evaluate

Standing = tuple[bool, float]
"""Whether the KL was within its bound, and then how good it is: the larger of two is the better."""


class Best:
    """The best weights so far; part of a checkpoint, so that a resumed run chooses among the same ones."""

    def __init__(self, settings: Evaluate) -> None:
        self.settings = settings
        self.step: int | None = None
        self._standing: Standing = (False, float("-inf"))
        self._weights: dict[str, Tensor] = {}

    def offer(self, step: int, numbers: Mapping[str, float], policy: CausalPolicy) -> None:
        """Keep these weights when they are better than all before; the first of equals stays."""
        if self.settings.select == "last" or "eval/kl_token" not in numbers:
            return
        found = standing(numbers, self.settings)
        if self.step is None or found > self._standing:
            self.step, self._standing, self._weights = step, found, policy.state()

    def put_back(self, policy: CausalPolicy) -> None:
        """Give the policy the best weights; it keeps its own where the last ones are wanted."""
        if self.step is not None:
            policy.load(self._weights)

    @property
    def within_bound(self) -> bool:
        """Whether any weights were near enough to the reference."""
        return self._standing[0]

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold of it."""
        return {"step": self.step, "standing": list(self._standing), "weights": self._weights}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint held."""
        self.step, self._weights = saved["step"], saved["weights"]
        self._standing = (saved["standing"][0], saved["standing"][1])


def standing(numbers: Mapping[str, float], settings: Evaluate) -> Standing:
    """Where weights stand by their validation marks: within the KL bound by the mark asked for, beyond it by the KL."""
    name, kl = f"eval/{settings.select}", numbers["eval/kl_token"]
    if name not in numbers:
        raise UserError(
            f"eval.select={settings.select}: it was not measured here; there are "
            f"{', '.join(sorted(n.removeprefix('eval/') for n in numbers if n.startswith('eval/')))}"
        )
    if settings.max_kl is not None and kl > settings.max_kl:
        return False, -kl
    return True, -numbers[name] if settings.select == "perplexity" else numbers[name]
