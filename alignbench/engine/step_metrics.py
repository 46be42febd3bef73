"""What a step looked like, in numbers with names."""

import torch
from torch import Tensor

from alignbench.core.batches import Experience, Forward, Scored

Metrics = dict[str, float]


class TokenMeans:
    """Means and deviations over the tokens of many microbatches, added up without waiting for the device."""

    def __init__(self) -> None:
        self.count: Tensor | float = 0.0
        self.sums: dict[str, Tensor] = {}
        self.squares: dict[str, Tensor] = {}

    def add(self, mask: Tensor, **tokens: Tensor) -> None:
        """Per-token quantities [n, t] of one microbatch."""
        self.count = self.count + mask.sum()
        for name, values in tokens.items():
            kept = values.detach()[mask].double()
            self.sums[name] = self.sums.get(name, kept.new_zeros(())) + kept.sum()
            self.squares[name] = self.squares.get(name, kept.new_zeros(())) + kept.square().sum()

    def mean(self, name: str) -> float:
        """The mean over all tokens so far; 0 before the first."""
        return float(self.sums[name] / max(float(self.count), 1.0)) if name in self.sums else 0.0

    def std(self, name: str) -> float:
        """The deviation (n) over all tokens so far."""
        square = float(self.squares[name]) / max(float(self.count), 1.0)
        return max(square - self.mean(name) ** 2, 0.0) ** 0.5


def observe(now: Forward, batch: Experience) -> dict[str, Tensor]:
    """What every algorithm's update shows of each token, [n, t]."""
    log_ratio = (now.logprobs - batch.old_logprobs).detach()
    to_reference = (batch.ref_logprobs - now.logprobs).detach().clamp(-20, 20)
    return {
        "ratio": log_ratio.exp(),
        "kl": to_reference.exp() - 1 - to_reference,
        "kl_to_old": log_ratio.exp() - 1 - log_ratio,
        "entropy": now.entropy,
        "advantages": batch.advantages,
    }


def rewards(scored: Scored) -> Metrics:
    """The distribution of the scores of a step, and the mean of each component."""
    scores = scored.scores.double()
    q25, median, q75 = torch.quantile(scores, scores.new_tensor([0.25, 0.5, 0.75])).tolist()
    out = {
        "rewards/mean": scores.mean(),
        "rewards/std": scores.std(correction=0),
        "rewards/max": scores.max(),
        "rewards/min": scores.min(),
        "rewards/median": median,
        "rewards/q25": q25,
        "rewards/q75": q75,
    }
    out |= {f"rewards/component/{name}": part.double().mean() for name, part in scored.components.items()}
    return {name: float(value) for name, value in out.items()} | separation(scored)


def separation(scored: Scored) -> Metrics:
    """How often a right answer of the step scored above a wrong one, ties half: the AUC of the score.

    Nothing where the score is correctness itself, nobody knows what is correct, or all answers are right or all wrong.
    """
    marks = {name: part for name, part in scored.components.items() if name.startswith("correct_")}
    if "correct_strict" not in marks or any(torch.equal(scored.scores, part) for part in marks.values()):
        return {}
    right = marks["correct_strict"] > 0
    gaps = scored.scores[right][:, None] - scored.scores[~right]
    return {"rewards/auc": float((gaps.sign().double() / 2 + 0.5).mean())} if gaps.numel() else {}


def shaped(scored: Scored) -> Metrics:
    """The scores as they are trained on, normalized and with penalties."""
    scores = scored.scores.double()
    return {"train/score_mean": float(scores.mean()), "train/score_std": float(scores.std(correction=0))}


def groups(scored: Scored) -> Metrics:
    """How many groups there were, and how many of them had nothing to compare because all scores were equal."""
    names, of = torch.unique(scored.group, return_inverse=True)
    low = torch.full((len(names),), torch.inf, device=of.device).scatter_reduce(0, of, scored.scores, "amin")
    high = torch.full((len(names),), -torch.inf, device=of.device).scatter_reduce(0, of, scored.scores, "amax")
    return {
        "group_stats/num_groups": float(len(names)),
        "group_stats/avg_group_size": len(of) / len(names),
        "group_stats/no_signal_fraction": float((low == high).double().mean()),
    }


def rollouts(scored: Scored) -> Metrics:
    """Length of the responses, how far the policy is from its reference in nats, and the sampler from the policy."""
    drift = (scored.old_logprobs - scored.ref_logprobs).double()
    return {
        "rollout/response_length": float(scored.mask.sum(1).double().mean()),
        "rollout/truncated_fraction": float(scored.truncated.double().mean()),
        "rollout/kl_sequence": float(drift.sum(1).mean()),
        "rollout/kl_token": float(drift.sum() / scored.mask.sum().clamp(min=1)),
        "rollout/sampler_gap": float((scored.logprobs - scored.old_logprobs).abs().max()),
        "rollout/effective_share": effective_share(scored),
    }


def effective_share(scored: Scored) -> float:
    """(sum w)^2 / (n sum w^2), w = pi / pi_sampler: the sampler's n tokens tell as much as that share of the policy's.

    1 where the two are the same. Kong 1992, University of Chicago, technical report 348.
    """
    weights = (scored.old_logprobs - scored.logprobs)[scored.mask].double().exp()
    return float(weights.sum().square() / (len(weights) * weights.square().sum()))


def critic(experience: Experience) -> Metrics:
    """How well the critic foresaw the returns; nothing without one."""
    if experience.values is None or experience.returns is None:
        return {}
    returns, values = experience.returns[experience.mask].double(), experience.values[experience.mask].double()
    spread = returns.var(correction=0)
    explained = 1 - (returns - values).var(correction=0) / spread if spread > 0 else spread
    return {"train/value_mean": float(values.mean()), "train/explained_variance": float(explained)}


def pairs(experience: Experience) -> Metrics:
    """How many pairs were compared, and how many groups had none; nothing where there are no pairs."""
    if experience.preferred is None:
        return {}
    each = (experience.preferred > 0).sum(1)
    names, of = torch.unique(experience.group, return_inverse=True)
    of_group = torch.zeros(len(names), dtype=each.dtype, device=of.device).index_add(0, of, each)
    return {
        "group_stats/pairs": float(each.sum()),
        "group_stats/unpaired_fraction": float((of_group == 0).double().mean()),
    }


def all_equal(scored: Scored) -> bool:
    """Whether all rollouts got the score of their siblings, or of all others where groups are of one."""
    shown = groups(scored)
    alone = shown["group_stats/avg_group_size"] == 1
    return bool((scored.scores == scored.scores[0]).all()) if alone else shown["group_stats/no_signal_fraction"] == 1
