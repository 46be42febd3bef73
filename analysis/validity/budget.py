"""What each method spent, and whether the methods spent the same."""

from dataclasses import dataclass

from ..study.load import Run, Study
from ..study.metrics import significant

TOKENS_MAY_DIFFER = 0.02
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
"""What a method takes for the budget it is given: a result, and no condition."""


@dataclass(frozen=True)
class LedgerRow:
    """One quantity of the budget, of all seeds of a method together."""

    quantity: str
    totals: dict[str, str]
    matched: str
    ok: bool | None


def budget(study: Study, price_per_hour: float | None = None) -> tuple[LedgerRow, ...]:
    """What each method spent over all its counted runs; the price where an hour of the machine has one."""
    rows = []
    for quantity, label in LEDGER.items():
        if quantity == "dollars" and price_per_hour is None:
            continue
        sums = {method: _total(quantity, study.runs_of(method), price_per_hour) for method in study.methods}
        matched, ok = _matched(quantity, list(sums.values()))
        shown = {method: "n/a" if total is None else _amount(quantity, total) for method, total in sums.items()}
        rows.append(LedgerRow(label, shown, matched, ok))
    return tuple(rows)


def _total(quantity: str, runs: list[Run], price_per_hour: float | None) -> float | None:
    """The sum over runs, the highest where it is memory; None where a run did not write it down."""
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
        return "n/a: not written by every run" if len(known) < len(sums) else "one method", None
    if quantity in MEASURED:
        return "measured, not matched", None
    if len(set(known)) == 1:
        return "yes, exactly", True
    spread = max(known) / min(known) - 1 if min(known) else float("inf")
    if quantity == "tokens" and spread <= TOKENS_MAY_DIFFER:
        return f"yes, within {TOKENS_MAY_DIFFER:.0%}", True
    if quantity == "prompts":
        return "no: the methods draw different numbers of answers per prompt", None
    return f"no: {max(known) / min(known):.2f} times" if min(known) else "no", False
