"""What each method spent, and whether the methods spent the same."""

from dataclasses import dataclass

from .load import Study
from .metrics import significant

TOKENS_MAY_DIFFER = 0.02
LEDGER = {
    "prompts": "Prompts seen",
    "completions": "Responses generated",
    "tokens": "Generated tokens",
    "optimizer_steps": "Optimizer steps",
    "flops": "Floating-point operations",
    "seconds": "Wall-clock time, s",
}


@dataclass(frozen=True)
class LedgerRow:
    """One quantity of the budget, summed over the seeds of each method."""

    quantity: str
    totals: dict[str, str]
    matched: str
    ok: bool | None


def budget(study: Study) -> tuple[LedgerRow, ...]:
    """What each method spent over all its counted runs."""
    rows = []
    for quantity, label in LEDGER.items():
        totals = {arm: [run.ledger.get(quantity) for run in study.of(arm)] for arm in study.arms}
        sums = {
            arm: None if None in numbers else sum(n for n in numbers if n is not None)
            for arm, numbers in totals.items()
        }
        matched, ok = _matched(quantity, list(sums.values()))
        shown = {method: "n/a" if total is None else _amount(quantity, total) for method, total in sums.items()}
        rows.append(LedgerRow(label, shown, matched, ok))
    return tuple(rows)


def _amount(quantity: str, total: float) -> str:
    return f"{total:.3g}" if quantity == "flops" else f"{total:,.0f}" if total >= 100 else significant(total)


def _matched(quantity: str, sums: list[float | None]) -> tuple[str, bool | None]:
    known = [number for number in sums if number is not None]
    if len(known) < len(sums) or len(known) < 2:
        return "n/a: not written by every run" if len(known) < len(sums) else "one method", None
    if quantity in ("seconds", "flops"):
        return "measured, not matched", None
    if len(set(known)) == 1:
        return "yes, exactly", True
    spread = max(known) / min(known) - 1 if min(known) else float("inf")
    if quantity == "tokens" and spread <= TOKENS_MAY_DIFFER:
        return f"yes, within {TOKENS_MAY_DIFFER:.0%}", True
    if quantity == "prompts":
        return "no: the methods draw different numbers of answers per prompt", None
    return f"no: {max(known) / min(known):.2f} times" if min(known) else "no", False
