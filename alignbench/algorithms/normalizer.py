"""Score normalization by an exponential moving average of mean and standard deviation."""

from dataclasses import dataclass

from alignbench.core.batches import PerRollout
from alignbench.core.errors import UserError
from alignbench.core.field_types import Fraction, Positive
from alignbench.core.protocols import RunningStats

SMALLEST_STD = 1e-6


@dataclass(frozen=True, kw_only=True)
class EMA:
    """Exponential moving mean and deviation; each batch is normalized by those of the batches before it.

    out_i = clip(center + scale (score_i - mean) / std, low, high)
    mean <- alpha mean + (1 - alpha) mean(batch)        std <- alpha std + (1 - alpha) std(batch), ddof 0
    """

    alpha: Fraction = 0.99
    """How much of the old statistics is kept at each step."""
    mean: float | None = None
    """The running mean at step 0; null takes the first batch's."""
    std: Positive | None = None
    """The running standard deviation at step 0; null takes the first batch's."""
    center: float = 0.0
    """Value that the running mean is mapped to."""
    scale: Positive = 1.0
    """Value that one standard deviation is mapped to."""
    low: float | None = None
    """Lower bound of normalized scores; null sets none."""
    high: float | None = None
    """Upper bound of normalized scores; null sets none."""

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise UserError("set both mean and std, or neither: null takes them from the first batch")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise UserError(f"low={self.low:g} is not below high={self.high:g}: every score would become the same")

    @property
    def start(self) -> RunningStats | None:
        """The configured statistics, or None."""
        return None if self.mean is None or self.std is None else RunningStats(mean=self.mean, std=self.std)

    def __call__(self, scores: PerRollout, stats: RunningStats | None) -> tuple[PerRollout, RunningStats]:
        """The scores [n] on the new scale, and the statistics after this batch."""
        batch = RunningStats(mean=float(scores.double().mean()), std=float(scores.double().std(correction=0)))
        now = stats or batch
        out = self.center + self.scale * (scores - now.mean) / max(now.std, SMALLEST_STD)
        if self.low is not None or self.high is not None:
            out = out.clamp(self.low, self.high)
        keep, new = self.alpha, 1 - self.alpha
        return out, RunningStats(mean=keep * now.mean + new * batch.mean, std=keep * now.std + new * batch.std)
