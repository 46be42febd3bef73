"""Per-token metrics of an update: means and standard deviations over the tokens of many microbatches."""

from torch import Tensor

from alignbench.core.batches import Experience, Forward

Metrics = dict[str, float]


class TokenMeans:
    """Means and standard deviations over tokens, accumulated on the device without synchronization."""

    def __init__(self) -> None:
        self.count: Tensor | float = 0.0
        self.sums: dict[str, Tensor] = {}
        self.squares: dict[str, Tensor] = {}

    def add(self, mask: Tensor, **tokens: Tensor) -> None:
        """Add the per-token quantities [n, t] of one microbatch; tokens outside `mask` are ignored."""
        self.count = self.count + mask.sum()
        for name, values in tokens.items():
            kept = values.detach()[mask].double()
            self.sums[name] = self.sums.get(name, kept.new_zeros(())) + kept.sum()
            self.squares[name] = self.squares.get(name, kept.new_zeros(())) + kept.square().sum()

    def mean(self, name: str) -> float:
        """Mean over all tokens added so far; 0 if there are none."""
        return float(self.sums[name] / max(float(self.count), 1.0)) if name in self.sums else 0.0

    def std(self, name: str) -> float:
        """Standard deviation (ddof 0) over all tokens added so far."""
        square = float(self.squares[name]) / max(float(self.count), 1.0)
        return max(square - self.mean(name) ** 2, 0.0) ** 0.5


def token_metrics(now: Forward, batch: Experience) -> dict[str, Tensor]:
    """The per-token quantities [n, t] that are logged for every algorithm."""
    log_ratio = (now.logprobs - batch.old_logprobs).detach()
    to_reference = (batch.ref_logprobs - now.logprobs).detach().clamp(-20, 20)
    return {
        "ratio": log_ratio.exp(),
        "kl": to_reference.exp() - 1 - to_reference,
        "kl_to_old": log_ratio.exp() - 1 - log_ratio,
        "entropy": now.entropy,
        "advantages": batch.advantages,
    }
