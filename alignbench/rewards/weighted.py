"""The weighted sum of other rewards, of which at most one uses a reward model."""

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from alignbench.core.batches import PerRollout, Rollouts, Row, Scores
from alignbench.core.errors import UserError
from alignbench.core.protocols import Calibration, LearnedScorer, ScoreModel, learned

CORRECTNESS = ("correct_strict", "correct_flexible")
"""Components that keep their name without the prefix of a part, because accuracy is computed from them."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One reward of a weighted sum."""

    weight: float = 1.0
    """Factor of its score; a negative one is a penalty, with 0 the score is only logged."""
    reward: Any
    """The reward."""


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """score = sum of weight * score over the parts; a part that uses a reward model gets it by `with_model`."""

    parts: dict[str, Part]
    """The rewards, by names of your choice."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise UserError("parts is empty: name at least one reward")
        if len(names := [name for name, part in self.parts.items() if learned(part.reward)]) > 1:
            raise UserError(f"parts {', '.join(names)} each need a reward model, and a study has one: keep one")

    def __call__(self, rollouts: Rollouts) -> Scores:
        """The sum and, as components `part/<name>`, each weighted score."""
        scores = {name: part.reward(rollouts) for name, part in self.parts.items()}
        added = {name: self.parts[name].weight * score.total for name, score in scores.items()}
        components = {f"part/{name}": value for name, value in added.items()}
        for name, score in scores.items():
            components |= _part_components(name, score.components, components)
        return Scores(total=torch.stack(list(added.values())).sum(0), components=components)

    def check(self, rows: Sequence[Row]) -> None:
        """Raise UserError, before training starts, when a part cannot score a row."""
        for part in self.parts.values():
            part.reward.check(rows)

    def content_hash(self) -> str:
        """The sha256 of the weights, this class and the content hashes of the parts."""
        parts = {name: (part.weight, part.reward.content_hash()) for name, part in self.parts.items()}
        return hashlib.sha256(f"{inspect.getsource(Weighted)} {json.dumps(parts)}".encode()).hexdigest()

    # --- with a reward model ------------------------------------------------------------------------------------

    @property
    def needs_model(self) -> bool:
        """Whether one of the parts needs a reward model."""
        return any(learned(part.reward) for part in self.parts.values())

    @property
    def path(self) -> str | None:
        """Folder of the reward model; None where the study trains it or no part needs one."""
        return self._learned()[1].path if self.needs_model else None

    def with_model(self, model: ScoreModel) -> "Weighted":
        """The same sum with this model for the part that needs one."""
        name, reward = self._learned()
        part = replace(self.parts[name], reward=reward.with_model(model))
        return replace(self, parts={**self.parts, name: part})

    def scale(self, known: Calibration) -> Calibration:
        """The calibration with which the model's scores enter the sum: that of the part, times its weight."""
        name, reward = self._learned()
        if not self.parts[name].weight:
            raise UserError(f"the part {name} has weight 0, so that its reward model does not change the score")
        own = reward.scale(known)
        return replace(own, std=own.std / self.parts[name].weight)

    def _learned(self) -> tuple[str, LearnedScorer]:
        return next((name, reward) for name, part in self.parts.items() if (reward := learned(part.reward)))


def _part_components(
    name: str, components: Mapping[str, PerRollout], used: Mapping[str, PerRollout]
) -> dict[str, PerRollout]:
    """The components of a part, prefixed by its name except for correctness components that no earlier part has."""
    unprefixed = {key for key in CORRECTNESS if key not in used}
    return {key if key in unprefixed else f"part/{name}/{key}": value for key, value in components.items()}
