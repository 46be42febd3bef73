"""A reward model's score: what it learned of people's preferences, on a known scale."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alignbench.core.batches import Rollouts, Row, Scores
from alignbench.core.errors import UserError
from alignbench.core.field_types import Count
from alignbench.core.protocols import Calibration, ScoreModel
from alignbench.engine import score
from alignbench.models.reward_model import check_folder
from alignbench.rewards.source_hash import fingerprint


@dataclass(frozen=True, kw_only=True)
class BradleyTerry:
    """The score of a frozen reward model; it needs that model before it can score.

        score = (r / temperature - mean) / std

    Temperature, mean and standard deviation are those the model got on validation pairs.
    """

    path: str | None = None
    """A folder with a trained reward model; null trains one for the study."""
    standardise: bool = True
    """Mean 0 and deviation 1 over validation answers, so that a KL coefficient means the same for another model."""
    microbatch_size: Count = 32
    """Rollouts scored at once."""

    @property
    def needs_model(self) -> bool:
        """Always."""
        return True

    def with_model(self, model: ScoreModel) -> "Judged":
        """The scorer that asks this model."""
        return Judged(reward=self, model=model)

    def scale(self, known: Calibration) -> Calibration:
        """How it brings a model's scores, of which this is known, to its own."""
        return known if self.standardise else Calibration(temperature=known.temperature)

    def check(self, rows: Sequence[Row]) -> None:
        """Raise UserError, before anything is trained, when `path` holds no reward model or a row has no prompt."""
        if self.path is not None:
            check_folder(Path(self.path))
        for row in rows:
            if not isinstance(row.get("prompt"), str):
                raise UserError(f"reward=bradley_terry needs a prompt; row {row['id']} has {', '.join(row)}")


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The scorer that asks a reward model."""

    reward: BradleyTerry
    model: ScoreModel

    def __call__(self, rollouts: Rollouts) -> Scores:
        """Scores of the policy's own tokens; the component `reward_model` is the model's score as it is."""
        raw = score.score_with_model(self.model, rollouts, self.reward.microbatch_size)
        scale = self.reward.scale(self.model.calibration)
        return Scores(total=(raw / scale.temperature - scale.mean) / scale.std, components={"reward_model": raw})

    def check(self, rows: Sequence[Row]) -> None:
        """Raise UserError when a row could not be scored."""
        self.reward.check(rows)

    def content_hash(self) -> str:
        """The sha256 of the knobs, the source and the weights."""
        rules = fingerprint(replace(self.reward, path=None), Judged)
        return hashlib.sha256(f"{rules} {self.model.weights_checksum()}".encode()).hexdigest()
