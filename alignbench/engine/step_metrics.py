"""The metrics of a step: functions of its rollouts or of its experience that return numbers by name.

To log one more metric, write such a function with one of the two decorators, and add the metric's name to
`alignbench.core.metric_names`.
"""

from collections.abc import Callable
from typing import TypeVar

import torch

from alignbench.core.batches import Experience, Scored
from alignbench.engine.token_metrics import Metrics

RolloutMetric = Callable[[Scored], Metrics]
ExperienceMetric = Callable[[Experience], Metrics]
R = TypeVar("R", bound=RolloutMetric)
E = TypeVar("E", bound=ExperienceMetric)
ROLLOUT_METRICS: list[RolloutMetric] = []
"""Computed from all rollouts of a step."""
EXPERIENCE_METRICS: list[ExperienceMetric] = []
"""Computed from what a step trains on: the selected rollouts, with shaped scores and advantages."""


def rollout_metric(measure: R) -> R:
    """Decorator: log what the function returns for all rollouts of each step."""
    ROLLOUT_METRICS.append(measure)
    return measure


def experience_metric(measure: E) -> E:
    """Decorator: log what the function returns for the experience of each step."""
    EXPERIENCE_METRICS.append(measure)
    return measure


@rollout_metric
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
    return {name: float(value) for name, value in out.items()}


@rollout_metric
def separation(scored: Scored) -> Metrics:
    """AUC of the score: how often a correct answer of the step scores above an incorrect one; ties count half.

    Empty where the score is correctness itself, where correctness is unknown, or where all answers are correct or all
    are incorrect.
    """
    marks = {name: part for name, part in scored.components.items() if name.startswith("correct_")}
    if "correct_strict" not in marks or any(torch.equal(scored.scores, part) for part in marks.values()):
        return {}
    correct = marks["correct_strict"] > 0
    gaps = scored.scores[correct][:, None] - scored.scores[~correct]
    return {"rewards/auc": float((gaps.sign().double() / 2 + 0.5).mean())} if gaps.numel() else {}


def rollouts(scored: Scored) -> Metrics:
    """Response length, KL of the policy to its reference in nats, and the gap between sampler and policy."""
    log_ratio = (scored.old_logprobs - scored.ref_logprobs).double()
    return {
        "rollout/response_length": float(scored.mask.sum(1).double().mean()),
        "rollout/truncated_fraction": float(scored.truncated.double().mean()),
        "rollout/kl_sequence": float(log_ratio.sum(1).mean()),
        "rollout/kl_token": float(log_ratio.sum() / scored.mask.sum().clamp(min=1)),
        "rollout/sampler_gap": float((scored.logprobs - scored.old_logprobs).abs().max()),
        "rollout/effective_share": effective_share(scored),
    }


def effective_share(scored: Scored) -> float:
    """Effective sample size as a share of the n sampled tokens: (sum w)^2 / (n sum w^2) with w = pi / pi_sampler.

    1 where sampler and policy agree. Kong 1992, University of Chicago, technical report 348.
    """
    weights = (scored.old_logprobs - scored.logprobs)[scored.mask].double().exp()
    return float(weights.sum().square() / (len(weights) * weights.square().sum()))


@experience_metric
def groups(scored: Scored) -> Metrics:
    """The number of groups, and the fraction of them without a learning signal because all their scores are equal."""
    names, group_index = torch.unique(scored.group, return_inverse=True)
    low = torch.full((len(names),), torch.inf, device=names.device).scatter_reduce(
        0, group_index, scored.scores, "amin"
    )
    high = torch.full((len(names),), -torch.inf, device=names.device).scatter_reduce(
        0, group_index, scored.scores, "amax"
    )
    return {
        "group_stats/num_groups": float(len(names)),
        "group_stats/avg_group_size": len(group_index) / len(names),
        "group_stats/no_signal_fraction": float((low == high).double().mean()),
    }


def all_equal(scored: Scored) -> bool:
    """Whether each rollout has the score of its siblings, or, with groups of one, that of all other rollouts."""
    measured = groups(scored)
    if measured["group_stats/avg_group_size"] == 1:
        return bool((scored.scores == scored.scores[0]).all())
    return measured["group_stats/no_signal_fraction"] == 1


@experience_metric
def critic(experience: Experience) -> Metrics:
    """The mean value, and the variance of the returns that the values explain; empty without a critic."""
    if experience.values is None or experience.returns is None:
        return {}
    returns, values = experience.returns[experience.mask].double(), experience.values[experience.mask].double()
    spread = returns.var(correction=0)
    explained = 1 - (returns - values).var(correction=0) / spread if spread > 0 else spread
    return {"train/value_mean": float(values.mean()), "train/explained_variance": float(explained)}


@experience_metric
def pairs(experience: Experience) -> Metrics:
    """The number of preference pairs, and the fraction of groups without one; empty where there are no pairs."""
    if experience.preferred is None:
        return {}
    each = (experience.preferred > 0).sum(1)
    names, group_index = torch.unique(experience.group, return_inverse=True)
    per_group = torch.zeros(len(names), dtype=each.dtype, device=each.device).index_add(0, group_index, each)
    return {
        "group_stats/pairs": float(each.sum()),
        "group_stats/unpaired_fraction": float((per_group == 0).double().mean()),
    }


@experience_metric
def shaped_scores(experience: Experience) -> Metrics:
    """The scores as they are trained on: normalized, penalties included."""
    scores = experience.scores.double()
    return {"train/score_mean": float(scores.mean()), "train/score_std": float(scores.std(correction=0))}
