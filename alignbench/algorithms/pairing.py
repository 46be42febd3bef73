"""Preference pairs of a group: their selection, the confidence in each preference, and their loss.

    L = mean over pairs of  confidence * link(h_better - h_worse)

        linear      -lead                        h = log pi: constant gradient, however large the lead
        logistic    -log sigmoid(beta lead)      h = log(pi / ref): DPO, on the policy's own answers
        squared     (lead - 1 / (2 beta))^2      h = log(pi / ref): IPO, likewise

h is the sum over the tokens of a response, or their mean. Rafailov et al. 2023, eq. 7, https://arxiv.org/abs/2305.18290;
Azar et al. 2023, eq. 17, https://arxiv.org/abs/2310.12036; online: Guo et al. 2024, https://arxiv.org/abs/2402.04792.
Both answers of a pair are sampled from the policy, and the better one has the higher score; equal scores make no pair,
except under winner_vs_all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from alignbench.core.batches import Experience, Forward, PerRollout, PerToken, Scored
from alignbench.core.errors import UserError
from alignbench.core.field_types import Positive
from alignbench.core.seeds import derive
from alignbench.equations.pairs import linear, logistic, squared

Couples = list[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Selects preference pairs by the scores of a group, and computes their loss."""

    selector: Literal["consecutive", "random", "winner_vs_all", "winner_vs_incorrect"] = "winner_vs_incorrect"
    """Adjacent rollouts, in order or shuffled; or the first of the best against all others or all lower ones."""
    win_score: float | None = None
    """Minimum score of a winner, below which answers are incorrect; null is the best score of the group."""
    distinct: bool = False
    """Whether duplicates of an earlier answer of the group are excluded."""
    sure_lead: Positive | None = None
    """The lead in score that gives confidence 1; smaller leads give proportionally less. Null: always 1."""
    link: Literal["linear", "logistic", "squared"] = "logistic"
    """Link function: the loss as a function of the lead in h."""
    beta: Positive | None = 0.1
    """Strength of the constraint to the reference: beta of DPO, tau of IPO; null for link=linear."""
    length_normalised: bool = False
    """Mean instead of sum over the tokens of a response."""

    def __post_init__(self) -> None:
        if (self.beta is None) != (self.link == "linear"):
            raise UserError(
                f"beta={self.beta} with link={self.link}: set beta=null for linear, and a positive "
                "number, such as 0.1, for logistic and squared"
            )
        if self.win_score is not None and self.selector in ("consecutive", "random"):
            raise UserError(f"win_score={self.win_score:g} has no effect with selector={self.selector}: set it to null")

    def preferences(self, batch: Scored) -> tuple[torch.Tensor, torch.Tensor]:
        """The index [n] of each rollout in its group, and the confidence [n, g] that it beats each sibling."""
        names, of = torch.unique(batch.group, return_inverse=True)
        rows_of = [(of == i).nonzero()[:, 0] for i in range(len(names))]
        number = torch.zeros_like(of)
        preferred = torch.zeros(len(of), max(map(len, rows_of)), device=of.device)
        for name, rows in zip(names.tolist(), rows_of, strict=True):
            number[rows] = torch.arange(len(rows), device=of.device)
            kept = self.compared([batch.texts[row] for row in rows.tolist()])
            scores = batch.scores[rows[kept]].tolist()
            for better, worse in self.couples(scores, derive(batch.seed, "pairs", name)):
                preferred[rows[kept[better]], kept[worse]] = self.confidence(scores[better] - scores[worse])
        return number, preferred

    def compared(self, texts: Sequence[str]) -> list[int]:
        """The indices of the answers of a group that can be in pairs."""
        return [i for i, text in enumerate(texts) if not (self.distinct and text in texts[:i])]

    def couples(self, scores: list[float], draw: torch.Generator) -> Couples:
        """(better, worse) pairs of one group, as indices."""
        count = len(scores)
        if self.selector in ("consecutive", "random"):
            shuffled = torch.randperm(count, generator=draw).tolist()
            order = shuffled if self.selector == "random" else range(count)
            couples = zip(order[0::2], order[1::2], strict=False)
            return [(a, b) if scores[a] > scores[b] else (b, a) for a, b in couples if scores[a] != scores[b]]
        winner = scores.index(max(scores))
        needed = scores[winner] if self.win_score is None else self.win_score
        if scores[winner] < needed or (self.win_score is None and min(scores) == max(scores)):
            return []
        everyone = self.selector == "winner_vs_all"
        return [(winner, i) for i in range(count) if i != winner and (everyone or scores[i] < needed)]

    def confidence(self, lead: float) -> float:
        """Confidence in a preference, from 0 to 1, by the lead in score."""
        return 1.0 if self.sure_lead is None else min(lead / self.sure_lead, 1.0)

    def matrix(self, batch: Experience) -> torch.Tensor:
        """Confidence that each row is preferred to each other row of this batch, [n, n]."""
        assert batch.preferred is not None
        assert batch.number is not None
        return batch.preferred[:, batch.number] * (batch.group[:, None] == batch.group[None, :])

    def share(self, batch: Experience) -> float:
        """1 / pairs: the weight of each preference pair of this minibatch."""
        return 1 / max(int((self.matrix(batch) > 0).sum()), 1)

    def loss(self, now: Forward, batch: Experience) -> torch.Tensor:
        """The weighted sum of the losses of all pairs in this batch."""
        score = self.response_scores(now.logprobs, batch)
        confidence, lead = self.matrix(batch), score[:, None] - score[None, :]
        if self.link == "linear":
            losses = linear(lead)
        else:
            assert self.beta is not None
            losses = logistic(lead, self.beta) if self.link == "logistic" else squared(lead, self.beta)
        return batch.pair_share * torch.where(confidence > 0, confidence * losses, 0.0).sum()

    def response_scores(self, logprobs: PerToken, batch: Experience) -> PerRollout:
        """h of each response, [n]."""
        against = logprobs if self.link == "linear" else logprobs - batch.ref_logprobs
        total = torch.where(batch.mask, against, 0.0).sum(1)
        return total / batch.mask.sum(1).clamp(min=1) if self.length_normalised else total
