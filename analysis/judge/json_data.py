"""Converts a judgement to plain data for report.json."""

from typing import Any

from ..statistics import Estimate
from .judgement import Judgement, MethodPairResult
from .tally import Tally


def judgement_to_json(judgement: Judgement | None) -> list[dict[str, Any]] | None:
    """One object per two methods; None without a judge."""
    return None if judgement is None else [_match(match, judgement) for match in judgement.matches]


def _estimate(found: Estimate | None) -> dict[str, Any] | None:
    if found is None:
        return None
    interval = None if found.low is None else [found.low, found.high]
    return {"estimate": found.value, "ci95": interval, "reason": found.reason}


def _counts(found: Tally) -> dict[str, Any]:
    return {
        "win": found.win,
        "tie": found.tie,
        "loss": found.loss,
        "invalid": found.invalid,
        "unjudged": found.unjudged,
        "score": found.score.value,
        "ci95": None if found.score.low is None else [found.score.low, found.score.high],
        "reason": found.score.reason,
    }


def _match(match: MethodPairResult, judgement: Judgement) -> dict[str, Any]:
    found, usage = match.tally, judgement.usage[0]
    return {
        "treatment": found.treatment,
        "baseline": found.baseline,
        "model": usage.judge.model,
        **_counts(found),
        "bounds_if_invalid": None if found.bounds is None else list(found.bounds),
        "troubles": found.failures,
        "prompts": found.prompts,
        "identical": found.identical,
        "cut": found.truncated,
        "mean_of_orders": _estimate(found.mean_of_orders),
        "shown_first_only": _estimate(found.shown_first),
        "shown_second_only": _estimate(found.shown_second),
        "length_controlled": _estimate(found.length_controlled),
        "consistency": found.consistency.value,
        "consistency_ci95": None if found.consistency.low is None else [found.consistency.low, found.consistency.high],
        "order_bias": {"first": found.favors_first, "second": found.favors_second, "p": found.order_p},
        "sign_test_p": found.sign_p,
        "e_value": found.e_value,
        "mean_chars": None if found.mean_chars is None else list(found.mean_chars),
        "bradley_terry": _estimate(match.bradley_terry),
        "second_judge": _second(match, judgement),
        "people": _human(match),
        "calls": match.calls,
        "cost_usd": match.dollars,
        "answered_by": list(usage.models),
        "shutdown_date": usage.shutdown_date,
        "stopped": usage.stopped,
    }


def _second(match: MethodPairResult, judgement: Judgement) -> dict[str, Any] | None:
    if match.second is None:
        return None
    model = judgement.usage[-1].judge.model
    return {
        "model": model,
        **_counts(match.second.tally),
        "agreement": match.second.agreement,
        "kappa": match.second.kappa,
        "cost_usd_of_all_pairs": judgement.usage[-1].dollars,
    }


def _human(match: MethodPairResult) -> dict[str, Any] | None:
    human = match.human
    if human is None:
        return None
    return {
        "labels": human.labels,
        "score": _estimate(human.score),
        "agreement": human.agreement,
        "kappa": human.kappa,
    }
