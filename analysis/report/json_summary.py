"""The findings as JSON, by the keys that other programs rely on."""

import json
from dataclasses import asdict
from math import isfinite
from typing import Any

from ..comparison.compare import Comparison
from ..comparison.stage_costs import StageCost
from ..comparison.strata import Stratum
from ..comparison.variance import VarianceByPrompt
from ..findings import Findings
from ..judge.json_data import judgement_to_json
from ..statistics import Estimate, interquartile_mean
from ..study.load import Run
from ..validity.overoptimization import OverOptimization
from ..validity.reward_hacking import format_overoptimization
from ..validity.reward_model import Bin, RewardModel

LEDGER = ("prompts", "completions", "tokens", "optimizer_steps", "seconds", "peak_memory_bytes")


def summary(findings: Findings) -> dict[str, Any]:
    """The whole report as plain data; a number that does not exist is null and says why."""
    return {
        "study": findings.study.name,
        "generated": findings.generated,
        "methods": findings.study.methods,
        "seeds": findings.study.seeds,
        "baseline": findings.declared.baseline,
        "headline_metric": findings.declared.metric,
        "margin": findings.declared.margin,
        "verdict": {"state": findings.verdict.state, "sentence": findings.verdict.sentence},
        "runs": [_run(run) for run in findings.study.runs],
        "comparisons": [_comparison(pair, findings.state_of(pair)) for pair in findings.pairs],
        "exploratory": [_comparison(pair, "not_tested") for pair in findings.exploratory],
        "pairing": {"by_seed": findings.pairing.by_seed, "refused": findings.pairing.refusal},
        "by_prompt": [_by_prompt(row) for row in findings.by_prompt],
        "judge": judgement_to_json(findings.judgement),
        "answers": {row.metric.name: {"start": row.start, "end": row.end} for row in findings.changes},
        "strata": [_stratum(row) for row in findings.strata],
        "over_optimization": [_over_optimization(finding) for finding in findings.over_optimization],
        "reward_models": [_reward_model(model) for model in findings.reward_models],
        "phases": [_phase(cost) for cost in findings.stage_costs],
        "fairness": _fairness(findings),
        "warnings": [warning.text for warning in findings.warnings],
    }


def as_json(findings: Findings, indent: int | None = 1) -> str:
    """The summary as text; without indent as short as it gets."""
    between = None if indent else (",", ":")
    return json.dumps(summary(findings), indent=indent, separators=between, allow_nan=False, ensure_ascii=True)


def _number(value: float | None) -> float | None:
    return None if value is None or not isfinite(value) else value


def _run(run: Run) -> dict[str, Any]:
    return {
        "method": run.method,
        "seed": run.seed,
        "status": run.status,
        "reason": run.reason,
        "counted": run.counted,
        "path": run.folder,
        "metrics": {name: _number(value) for name, value in sorted(run.metrics.items()) if name.startswith("final/")},
        "ledger": {name: run.ledger.get(name) for name in LEDGER},
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    interval = None if estimate.low is None else [estimate.low, estimate.high]
    return {"estimate": _number(estimate.value), "ci95": interval, "reason": estimate.reason}


def _comparison(pair: Comparison, verdict: str) -> dict[str, Any]:
    return {
        "treatment": pair.treatment,
        "baseline": pair.baseline,
        "metric": pair.metric.name,
        "n": list(pair.n),
        "means": [_number(sum(row) / len(row)) if row else None for row in pair.scores],
        "difference": _estimate(pair.difference),
        "cohens_d": _estimate(pair.cohens_d),
        "hedges_g": _estimate(pair.hedges_g),
        "welch": {"t": pair.welch.t, "df": pair.welch.df, "p": pair.welch.p, "p_holm": pair.p_holm},
        "glass_delta": _estimate(pair.glass_delta),
        "paired": _paired(pair),
        "interquartile_means": [_estimate(interquartile_mean(row)) for row in pair.scores],
        "probability_of_improvement": pair.probability_of_improvement,
        "probability_above_zero": pair.test.probability_above_zero,
        "permutation": {"p": pair.permutation.p, "smallest_possible_p": pair.permutation.smallest},
        "pairs_in_family": pair.family,
        "minimum_detectable_d": pair.detectable_d,
        "power_of_welch_at_minimum_detectable_d": pair.welch_power,
        "minimum_detectable_difference": pair.detectable,
        "seeds_needed_for": {"0.8": pair.seeds_needed_for_d(0.8)},
        "verdict": verdict,
    }


def _stratum(row: Stratum) -> dict[str, Any]:
    return {
        "stratum": row.name,
        "metric": row.metric.name,
        "means": row.means,
        "differences": {method: _estimate(estimate) for method, estimate in row.differences.items()},
    }


def _over_optimization(finding: OverOptimization) -> dict[str, Any]:
    return {
        "method": finding.method,
        "state": finding.state,
        "sentence": format_overoptimization(finding),
        **{name: asdict(point) for name, point in finding.points.items()},
        "fall": _estimate(finding.fall),
        "fall_at_most_the_gain": _estimate(finding.capped_fall),
        "rise_of_proxy": _estimate(finding.rise),
        "smallest_fall_that_matters": finding.relevant_fall,
        "seeds": [asdict(seed) for seed in finding.seeds],
    }


def _reward_model(model: RewardModel) -> dict[str, Any]:
    return {
        "key": model.key,
        "runs": list(model.runs),
        "accuracy": None if model.accuracy is None else _estimate(model.accuracy),
        "pairs": model.pairs,
        "by_margin": [_bin(row) for row in model.by_margin],
        "by_length": [_bin(row) for row in model.by_length],
        "gates": [{**asdict(gate), "passed": gate.passed} for gate in model.gates],
        **{name: _number(value) for name, value in model.calibration.items()},
    }


def _bin(row: Bin) -> dict[str, Any]:
    return {"from": _number(row.low), "to": _number(row.high), "accuracy": _estimate(row.accuracy), "pairs": row.pairs}


def _phase(cost: StageCost) -> dict[str, Any]:
    numbers = asdict(cost)
    keys = {"phase": numbers.pop("stage"), "arm": numbers.pop("method")}
    return {**keys, **numbers, "label": cost.label, "verdict": cost.verdict}


def _paired(pair: Comparison) -> dict[str, Any] | None:
    test = pair.paired
    if test is None:
        return None
    numbers = {"t": test.t, "df": test.df, "p": test.p, "correlation": test.correlation}
    return {**numbers, "d_z": _estimate(test.d_z), "d_av": _estimate(test.d_av)}


def _by_prompt(row: VarianceByPrompt) -> dict[str, Any]:
    budget = row.crossed.budget
    return {
        "treatment": row.comparison.treatment,
        "baseline": row.comparison.baseline,
        "prompts": row.prompts,
        "new_prompts": _estimate(row.crossed.new_prompts),
        "new_seeds_and_prompts": _estimate(row.crossed.new_both),
        "variance": None if budget is None else dict(zip(("seeds", "prompts", "rest"), budget.shares, strict=True)),
        "standard_error": None if budget is None else budget.error(),
        "narrowed_more_by": None if budget is None else budget.larger_source,
        "mcnemar": None if row.mcnemar is None else asdict(row.mcnemar),
    }


def _fairness(findings: Findings) -> dict[str, Any]:
    fairness = findings.fairness
    return {
        "ok": fairness.ok,
        "allowed_differences": [
            {"key": d.key, "values": d.values, "why": d.allowed} for d in fairness.differences if d.allowed
        ],
        "violations": fairness.violations,
        "checks": [{"name": c.name, "outcome": c.outcome, "evidence": c.evidence} for c in fairness.checks],
        "budget": {row.quantity: {**row.totals, "matched": row.matched} for row in fairness.ledger},
    }
