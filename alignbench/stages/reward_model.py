"""The reward model stage: trains on preference pairs, calibrates and evaluates the model that a study shares."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor

from alignbench.core.batches import Pairs, Row, sequences
from alignbench.core.errors import UserError
from alignbench.core.field_types import Count, Fraction, NonNegative, Size
from alignbench.core.seeds import in_epochs
from alignbench.engine.checks import Invariants, Level
from alignbench.engine.optimizer import AdamW, Optimizer
from alignbench.engine.run_state import RunState, StepReport
from alignbench.engine.score import score_with_model
from alignbench.engine.supervised_loop import SupervisedLoop
from alignbench.equations.pairs import bradley_terry
from alignbench.models.loading import Lora
from alignbench.models.reward_model import RewardModel
from alignbench.models.text import Text
from alignbench.stages import calibration
from alignbench.stages.failure_dump import describe_batch, record_failures

LENGTH_EDGES = (None, 0, 1, None)
"""Bins of (tokens of the chosen answer - tokens of the rejected one): shorter, equal, longer."""
RewardModelCard = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RewardModelTraining:
    """Settings of the reward model: trained on train pairs, calibrated on validation pairs, evaluated on test pairs."""

    seed: Size = 42
    """Seed of this stage, separate from the run's seed, so that all runs of a study share one reward model."""
    start: Literal["sft", "base"] = "sft"
    """Initial weights of the trunk; an SFT adapter stays frozen below the new one."""
    lora: Lora | None = None
    """The adapter to train; null uses model.lora, and all weights if that is null too."""
    steps: Count = 300
    """Optimizer steps."""
    batch_size: Count = 32
    """Preference pairs in each step."""
    margin_scale: NonNegative = 0.0
    """Factor on the margin of a pair in the loss; 0 ignores margins."""
    max_tokens: Count | None = None
    """Maximum length of prompt and answer together; null is the model's context."""
    too_long: Literal["error", "drop"] = "error"
    """A pair with a longer answer is an error, or is dropped and counted."""
    optimizer: AdamW = AdamW(
        learning_rate=1e-3, weight_decay=0.01, warmup_steps=20, schedule="linear", final_fraction=0.05
    )
    """Optimizer of the reward model."""
    min_accuracy: Fraction = 0.7
    """Minimum accuracy on validation pairs."""
    max_ece: Fraction = 0.1
    """Maximum expected calibration error (ECE); above it a temperature is fitted, after which it must not exceed it."""
    gate: Level = "error"
    """What happens if the reward model misses one of these two thresholds."""
    margin_edges: tuple[NonNegative, ...] = (0.0, 0.5, 1.0, 1.5, 2.0)
    """Bin edges of the margin for which accuracy is reported; the last bin is open."""

    def comparisons(self, rows: Sequence[Row], text: Text) -> "Comparisons":
        """The tokenized rows. Raises UserError if there are none, or for one that is too long or lacks a margin."""
        limit = min(self.max_tokens or text.context, text.context)
        return Comparisons(rows, text, limit, self.too_long, self.margin_scale)

    def run(
        self,
        model: RewardModel,
        rows: Sequence[Row],
        microbatch_size: int,
        invariants: Invariants,
        tokens_per_microbatch: int | None = None,
    ) -> Iterator[StepReport]:
        """Train the model, yielding a report after each step; `microbatch_size` counts answers, two for each pair."""
        pairs = self.comparisons(rows, model.text)
        weights = [parameter for _, parameter in model.trainable()]
        loop = SupervisedLoop(
            model=model,
            objective=Preference(model),
            batch_at=lambda step: pairs.batch(self.seed, step, self.batch_size).to(model.device),
            optimizer=Optimizer([(weights, self.optimizer.learning_rate)], self.optimizer, self.steps),
            microbatch_size=max(microbatch_size // 2, 1),
            tokens_per_microbatch=tokens_per_microbatch,
            invariants=invariants,
            notes=pairs.notes,
        )
        with model.training(), torch.random.fork_rng():
            torch.manual_seed(self.seed)
            reports = islice(loop.run(RunState()), self.steps)
            yield from record_failures(reports, 0, lambda step: describe_batch(loop.batch_at(step), model.text))

    def evaluate(
        self, model: RewardModel, validation: Sequence[Row], test: Sequence[Row], microbatch_size: int
    ) -> RewardModelCard:
        """Evaluate the model, for its card: temperature and scale from validation pairs, accuracy from test pairs."""
        held_out = PairScores.compute(model, self.comparisons(validation, model.text), microbatch_size)
        before = calibration.calibration_error(held_out.leads)
        temperature = calibration.best_temperature(held_out.leads) if before > self.max_ece else 1.0
        scaled = held_out.scores / temperature
        final = PairScores.compute(model, self.comparisons(test, model.text), microbatch_size)
        known = ~final.margins.isnan()
        return {
            "accuracy": calibration.accuracy(final.leads),
            "pairs": len(final.leads),
            "accuracy_by_margin": calibration.accuracy_by_bin(
                final.margins[known], final.leads[known], (*self.margin_edges, None)
            ),
            "accuracy_by_length": calibration.accuracy_by_bin(final.length_differences, final.leads, LENGTH_EDGES),
            "loss": calibration.mean_loss(final.leads, temperature),
            "ece": calibration.calibration_error(final.leads, temperature),
            "ece_unscaled": calibration.calibration_error(final.leads),
            "temperature": temperature,
            "mean": float(scaled.mean()),
            "std": float(scaled.std(correction=0)) or 1.0,
            "validation_accuracy": calibration.accuracy(held_out.leads),
            "validation_pairs": len(held_out.leads),
            "validation_ece": calibration.calibration_error(held_out.leads, temperature),
            "validation_ece_unscaled": before,
            "dropped_pairs": {"validation": held_out.dropped, "test": final.dropped},
        }

    def check_gate(self, card: Mapping[str, Any]) -> list[str]:
        """The warnings of the quality gate for a model with this card. Raises UserError with gate=error."""
        missed, share, error = [], card["validation_accuracy"], card["validation_ece"]
        if share < self.min_accuracy:
            missed.append(
                f"ranks {share:.1%} of {card['validation_pairs']} validation pairs correctly, below "
                f"reward_model.min_accuracy={self.min_accuracy:g}"
            )
        if error > self.max_ece:
            missed.append(
                f"has an expected calibration error of {error:.3f} at temperature {card['temperature']:.3g}, "
                f"above reward_model.max_ece={self.max_ece:g}"
            )
        if not missed or self.gate == "off":
            return []
        message = f"the reward model {' and '.join(missed)}: train it longer (reward_model.steps) or on more pairs"
        if self.gate == "error":
            raise UserError(f"{message}; reward_model.gate=warn continues with a warning")
        return [f"{message}. (reward_model.gate)"]


def card_metrics(card: Mapping[str, Any]) -> dict[str, float]:
    """The scalar metrics of a card, by metric name."""
    return {
        "reward_model/test_accuracy": card["accuracy"],
        "reward_model/test_loss": card["loss"],
        "reward_model/ece": card["ece"],
        "reward_model/temperature": card["temperature"],
        "reward_model/validation_accuracy": card["validation_accuracy"],
        "reward_model/score_mean": card["mean"],
        "reward_model/score_std": card["std"],
    }


@dataclass(frozen=True)
class Preference:
    """The Bradley-Terry loss: -mean log sigmoid(r_chosen - r_rejected - margin) over the pairs of a batch."""

    model: RewardModel
    name: str = "reward_model"

    def count(self, batch: Pairs) -> int:
        """Number of pairs."""
        return len(batch)

    def sums(self, part: Pairs) -> dict[str, Tensor]:
        """Sums over the pairs: loss, correctly ranked pairs, and lead (score of chosen minus score of rejected)."""
        chosen, rejected = self.model(part.both).view(2, -1)
        leads = (chosen - rejected).detach()
        return {
            "loss": bradley_terry(chosen, rejected, part.margin).sum(),
            "accuracy": calibration.correct(leads).sum(),
            "lead": leads.sum(),
        }


class Comparisons:
    """Tokenized preference pairs, in an order that is a function of seed and step."""

    def __init__(
        self, rows: Sequence[Row], text: Text, limit: int, too_long: Literal["error", "drop"], margin_scale: float
    ) -> None:
        if not rows:
            raise UserError("the dataset has no preference pairs: choose a dataset that has some, or another reward")
        self.pad, self.margin_scale = text.pad, margin_scale
        self.tokens: list[tuple[list[int], list[int], list[int]]] = []
        self.margins: list[float | None] = []
        """Margin of each pair; None where the dataset has none."""
        for row in rows:
            prompt, chosen, rejected = (
                text.encode_prompt(row["prompt"]),
                *map(text.encode_completion, (row["chosen"], row["rejected"])),
            )
            longest = max(len(chosen), len(rejected))
            if len(prompt) + longest <= limit:
                self.tokens.append((prompt, chosen, rejected))
                self.margins.append(row.get("margin"))
            elif too_long == "error":
                raise UserError(
                    f"pair {row['id']} has {len(prompt)} + {longest} tokens, more than {limit}, the "
                    "smaller of reward_model.max_tokens and the model's context: drop such pairs with "
                    "reward_model.too_long=drop, or raise the limit"
                )
            if margin_scale and row.get("margin") is None:
                raise UserError(
                    f"pair {row['id']} has no margin, which reward_model.margin_scale={margin_scale:g} needs: "
                    "set it to 0, or choose a dataset with margins"
                )
        self.dropped = len(rows) - len(self.tokens)
        """Number of pairs that were too long."""
        note = f"dropped {self.dropped} of {len(rows)} pairs that have more than {limit} tokens"
        self.notes = (note,) if self.dropped else ()
        if not self.tokens:
            raise UserError(
                f"each of the {len(rows)} pairs has more than {limit} tokens: raise "
                "reward_model.max_tokens, or choose a model with a longer context"
            )

    def batch(self, seed: int, step: int, size: int) -> Pairs:
        """The pairs of a step; each epoch is a new permutation."""
        return self.take(self._rows(seed, step, size))

    def tokens_in(self, seed: int, steps: int, size: int) -> int:
        """Number of answer tokens, of both answers of each pair, in that many steps."""
        return sum(
            len(side) for step in range(steps) for i in self._rows(seed, step, size) for side in self.tokens[i][1:]
        )

    def _rows(self, seed: int, step: int, size: int) -> list[int]:
        return in_epochs(len(self.tokens), step, size, seed, "comparisons")

    def take(self, rows: Sequence[int]) -> Pairs:
        """The pairs with these indices as one batch."""
        prompts, answers = [self.tokens[i][0] for i in rows], [[self.tokens[i][side] for i in rows] for side in (1, 2)]
        margins = [self.margin_scale * (self.margins[i] or 0.0) for i in rows]
        return Pairs(both=sequences(prompts * 2, answers[0] + answers[1], self.pad), margin=torch.tensor(margins))


@dataclass(frozen=True, kw_only=True)
class PairScores:
    """A reward model's scores of preference pairs."""

    scores: Tensor
    """Scores of the chosen and of the rejected answers, [2, m], float64."""
    margins: Tensor
    """Margin of each pair, [m]; NaN where the dataset has none."""
    length_differences: Tensor
    """Tokens of the chosen answer minus tokens of the rejected one, [m]."""
    dropped: int

    @classmethod
    def compute(cls, model: RewardModel, pairs: Comparisons, microbatch_size: int) -> "PairScores":
        """Score every pair."""
        both = pairs.take(range(len(pairs.tokens))).both
        lengths = both.mask.sum(1).view(2, -1)
        unknown = float("nan")
        return cls(
            scores=score_with_model(model, both, microbatch_size).double().cpu().view(2, -1),
            margins=torch.tensor([unknown if m is None else m for m in pairs.margins], dtype=torch.float64),
            length_differences=lengths[0] - lengths[1],
            dropped=pairs.dropped,
        )

    @property
    def leads(self) -> Tensor:
        """Score of the chosen answer minus score of the rejected one, [m]."""
        return self.scores[0] - self.scores[1]
