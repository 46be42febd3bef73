"""The weighted sum of other rewards, a learned one among them if wanted."""

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

MARKS = ("correct_strict", "correct_flexible")
"""What says which answers are right keeps its name, so that accuracy is measured."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One reward of a sum."""

    weight: float = 1.0
    """What its score is multiplied with; below zero it is a penalty, at zero it is only logged."""
    reward: Any
    """The reward."""


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """score = sum of weight * score over the parts; with one learned part it needs that part's model first."""

    parts: dict[str, Part]
    """The rewards by a name of your choice."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise UserError("parts is empty: name at least one reward")
        if len(judged := [name for name, part in self.parts.items() if learned(part.reward)]) > 1:
            raise UserError(f"parts {', '.join(judged)} each need a reward model, and a study has one: keep one")

    def __call__(self, rollouts: Rollouts) -> Scores:
        """Scores, and as `part/<name>` what each part added to them."""
        scores = {name: part.reward(rollouts) for name, part in self.parts.items()}
        added = {name: self.parts[name].weight * score.total for name, score in scores.items()}
        components = {f"part/{name}": value for name, value in added.items()}
        for name, score in scores.items():
            components |= _of_part(name, score.components, components)
        return Scores(total=torch.stack(list(added.values())).sum(0), components=components)

    def check(self, rows: Sequence[Row]) -> None:
        """Raise UserError, before anything is trained, when a part could not score a row."""
        for part in self.parts.values():
            part.reward.check(rows)

    def content_hash(self) -> str:
        """The sha256 of the weights, this class and the fingerprints of the parts."""
        parts = {name: (part.weight, part.reward.content_hash()) for name, part in self.parts.items()}
        return hashlib.sha256(f"{inspect.getsource(Weighted)} {json.dumps(parts)}".encode()).hexdigest()

    # --- with a learned part ------------------------------------------------------------------------------------

    @property
    def needs_model(self) -> bool:
        """Whether one of the parts does."""
        return any(learned(part.reward) for part in self.parts.values())

    @property
    def path(self) -> str | None:
        """Where the learned part's model is; None where the study trains it, or no part needs one."""
        return self._learned()[1].path if self.needs_model else None

    def with_model(self, model: ScoreModel) -> "Weighted":
        """The same sum, its learned part asking this model."""
        name, reward = self._learned()
        asking = replace(self.parts[name], reward=reward.with_model(model))
        return replace(self, parts={**self.parts, name: asking})

    def scale(self, known: Calibration) -> Calibration:
        """How the model's scores enter the sum: as the learned part brings them to its own scale, times its weight."""
        name, reward = self._learned()
        if not self.parts[name].weight:
            raise UserError(f"the learned part {name} has weight 0: nothing of its model enters the score")
        own = reward.scale(known)
        return replace(own, std=own.std / self.parts[name].weight)

    def _learned(self) -> tuple[str, LearnedScorer]:
        return next((name, found) for name, part in self.parts.items() if (found := learned(part.reward)))


def _of_part(name: str, told: Mapping[str, PerRollout], taken: Mapping[str, PerRollout]) -> dict[str, PerRollout]:
    """The components of a part under its name; the marks of the first part that has them under their own."""
    own = {mark for mark in MARKS if mark not in taken}
    return {key if key in own else f"part/{name}/{key}": value for key, value in told.items()}
