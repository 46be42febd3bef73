"""The findings as JSON, by the keys that other programs rely on."""

import json
from math import isfinite
from typing import Any

from .compare import Comparison
from .findings import Findings
from .load import Run
from .statistics import Estimate

LEDGER = ("prompts", "completions", "tokens", "optimizer_steps", "seconds", "peak_memory_bytes")


def summary(findings: Findings) -> dict[str, Any]:
    """The whole report as plain data; a number that does not exist is null and says why."""
    return {
        "study": findings.study.name,
        "generated": findings.generated,
        "methods": findings.study.arms,
        "seeds": findings.study.seeds,
        "baseline": findings.declared.baseline,
        "headline_metric": findings.declared.metric,
        "margin": findings.declared.margin,
        "verdict": {"state": findings.verdict.state, "sentence": findings.verdict.sentence},
        "runs": [_run(run) for run in findings.study.runs],
        "comparisons": [_comparison(pair, findings.state_of(pair)) for pair in findings.pairs],
        "exploratory": [_comparison(pair, "not_tested") for pair in findings.exploratory],
        "judge": None,
        "fairness": _fairness(findings),
        "warnings": [caution.text for caution in findings.cautions],
    }


def as_json(findings: Findings) -> str:
    """The summary as text."""
    return json.dumps(summary(findings), indent=1, allow_nan=False, ensure_ascii=True)


def _number(value: float | None) -> float | None:
    return None if value is None or not isfinite(value) else value


def _run(run: Run) -> dict[str, Any]:
    return {
        "method": run.arm,
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
        "permutation": {"p": pair.permutation.p, "smallest_possible_p": pair.permutation.smallest},
        "pairs_in_family": pair.family,
        "minimum_detectable_d": pair.detectable_d,
        "minimum_detectable_difference": pair.detectable,
        "seeds_needed_for": {"0.8": pair.seeds_for_d(0.8)},
        "verdict": verdict,
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
