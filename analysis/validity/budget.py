"""Budget of each method (prompts, responses, tokens, steps, time), and whether the budgets match."""

from dataclasses import dataclass

from ..study.load import Run, Study
from ..study.metrics import significant

TOKEN_TOLERANCE = 0.02
LEDGER = {
    "prompts": "Prompts seen",
    "completions": "Responses generated",
    "tokens": "Generated tokens",
    "optimizer_steps": "Optimizer steps",
    "flops": "Floating-point operations",
    "seconds": "Wall-clock time, s",
    "peak_memory_bytes": "Peak memory of a run, GiB",
    "dollars": "Price, $",
}
MEASURED = ("seconds", "flops", "peak_memory_bytes", "dollars")
"""Quantities that are results of a method, not conditions that must match."""


@dataclass(frozen=True)
class LedgerRow:
    """One quantity of the budget, summed over the seeds of each method. `ok`: matched; None if it need not match."""

    quantity: str
    totals: dict[str, str]
    matched: str
    ok: bool | None


def compute_budget(study: Study, price_per_hour: float | None = None) -> tuple[LedgerRow, ...]:
    """Compute the budget of each method over its counted runs, with the price if a price per hour is set."""
    rows = []
    for quantity, label in LEDGER.items():
        if quantity == "dollars" and price_per_hour is None:
            continue
        sums = {method: _total(quantity, study.runs_of(method), price_per_hour) for method in study.methods}
        matched, ok = _matched(quantity, list(sums.values()))
        formatted = {method: "n/a" if total is None else _amount(quantity, total) for method, total in sums.items()}
        rows.append(LedgerRow(label, formatted, matched, ok))
    return tuple(rows)


def _total(quantity: str, runs: list[Run], price_per_hour: float | None) -> float | None:
    """Sum over runs (maximum for memory); None if a run did not record the quantity."""
    numbers = [run.ledger.get("seconds" if quantity == "dollars" else quantity) for run in runs]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        return None
    if quantity == "peak_memory_bytes":
        return max(known, default=0.0) / 2**30
    return sum(known) * (price_per_hour or 0.0) / 3600 if quantity == "dollars" else sum(known)


def _amount(quantity: str, total: float) -> str:
    return f"{total:.3g}" if quantity == "flops" else f"{total:,.0f}" if total >= 100 else significant(total)


def _matched(quantity: str, sums: list[float | None]) -> tuple[str, bool | None]:
    known = [number for number in sums if number is not None]
    if len(known) < len(sums) or len(known) < 2:
        return "n/a: not recorded by every run" if len(known) < len(sums) else "one method", None
    if quantity in MEASURED:
        return "measured, not matched", None
    if len(set(known)) == 1:
        return "yes, exactly", True
    spread = max(known) / min(known) - 1 if min(known) else float("inf")
    if quantity == "tokens" and spread <= TOKEN_TOLERANCE:
        return f"yes, within {TOKEN_TOLERANCE:.0%}", True
    if quantity == "prompts":
        return "no: the methods sample different numbers of responses per prompt", None
    return f"no: {max(known) / min(known):.2f} times" if min(known) else "no", False
