"""The calibrated score of a Bradley-Terry reward model trained on preference pairs."""

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
from alignbench.rewards.source_hash import source_hash


@dataclass(frozen=True, kw_only=True)
class BradleyTerry:
    """The score r of a frozen reward model, calibrated; `with_model` supplies the model.

        score = (r / temperature - mean) / std

    The temperature, mean and standard deviation were measured on validation pairs when the model was trained.
    """

    path: str | None = None
    """Folder of a trained reward model; null trains one for the study."""
    standardise: bool = True
    """Subtract the mean and divide by the standard deviation over validation answers: KL coefficients then carry over
    from one reward model to another."""
    microbatch_size: Count = 32
    """Rollouts in one forward pass of the reward model."""

    @property
    def needs_model(self) -> bool:
        """True: every score comes from a reward model."""
        return True

    def with_model(self, model: ScoreModel) -> "RewardModelScorer":
        """The scorer that uses this model."""
        return RewardModelScorer(reward=self, model=model)

    def scale(self, known: Calibration) -> Calibration:
        """The calibration that this reward applies to the scores of a model with calibration `known`."""
        return known if self.standardise else Calibration(temperature=known.temperature)

    def check(self, rows: Sequence[Row]) -> None:
        """Raise UserError, before training starts, when `path` is not a reward model or a row has no prompt."""
        if self.path is not None:
            check_folder(Path(self.path))
        for row in rows:
            if not isinstance(row.get("prompt"), str):
                raise UserError(
                    f"reward=bradley_terry needs the column 'prompt', a text; row {row['id']} has the columns "
                    f"{', '.join(row)}"
                )


@dataclass(frozen=True, kw_only=True)
class RewardModelScorer:
    """A Bradley-Terry reward with its reward model."""

    reward: BradleyTerry
    model: ScoreModel

    def __call__(self, rollouts: Rollouts) -> Scores:
        """Calibrated scores of the sampled tokens; the component `reward_model` is the raw score."""
        raw = score.score_with_model(self.model, rollouts, self.reward.microbatch_size)
        scale = self.reward.scale(self.model.calibration)
        return Scores(total=(raw / scale.temperature - scale.mean) / scale.std, components={"reward_model": raw})

    def check(self, rows: Sequence[Row]) -> None:
        """Raise UserError when a row cannot be scored."""
        self.reward.check(rows)

    def content_hash(self) -> str:
        """The sha256 of the settings, the source and the weights of the model."""
        rules = source_hash(replace(self.reward, path=None), RewardModelScorer)
        return hashlib.sha256(f"{rules} {self.model.weights_checksum()}".encode()).hexdigest()
