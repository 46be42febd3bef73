"""Scope of the conclusions: generalization to new prompts, and pairing by seed that was not possible."""

from collections.abc import Sequence

from ..comparison.compare import Comparison
from ..comparison.paired_design import PairedDesign
from ..comparison.variance import VarianceByPrompt
from ..comparison.verdict import format_interval, format_subtraction
from ..study.metrics import signed
from .warnings import ReportWarning


def prompt_warnings(rows: Sequence[VarianceByPrompt]) -> list[ReportWarning]:
    """Warn that the deciding interval holds for these prompts, with the interval for new seeds and new prompts."""
    known = [row for row in rows if row.crossed.new_both.low is not None]
    if not known:
        return []
    includes_zero = [row for row in known if not row.holds_for_new_prompts and _excludes_zero(row)]
    row = includes_zero[0] if includes_zero else max(known, key=_width)
    metric, both = row.comparison.metric, row.crossed.new_both
    interval = format_interval(metric, both, "", sign=True).strip("()")
    which = f" for {format_subtraction(row.comparison)}" if len(rows) > 1 else ""
    scope = f"The interval generalizes to new seeds on these {row.prompts:,} prompts"
    text = f"{scope}; for new prompts as well it is {interval}{which}"
    ending = ", which includes zero: the verdict holds for these prompts only." if includes_zero else "."
    return [ReportWarning("limits the verdict", text + ending, f"with new prompts: {interval}")]


def _excludes_zero(row: VarianceByPrompt) -> bool:
    low, high = row.comparison.difference.low, row.comparison.difference.high
    return low is not None and high is not None and not low <= 0 <= high


def _width(row: VarianceByPrompt) -> float:
    return (row.crossed.new_both.high or 0.0) - (row.crossed.new_both.low or 0.0)


def pairing_warnings(pairing: PairedDesign) -> list[ReportWarning]:
    """Warn if pairing by seed was declared and is not possible."""
    if pairing.refusal is None:
        return []
    text = f"analysis.pairing=seed is not possible: {pairing.refusal}. The seeds are compared as independent groups."
    return [ReportWarning("limits the verdict", text, "pairing by seed is not possible")]


def format_pairing_note(pairing: PairedDesign, comparisons: Sequence[Comparison]) -> str:
    """Caption of a paired comparison, with correlation and d_z; empty for independent groups."""
    if not pairing.by_seed or not comparisons or comparisons[0].paired is None:
        return ""
    note = "Seeds are paired, as declared: each seed has the same SFT model and prompt order in every method."
    first, d_z = comparisons[0].paired, comparisons[0].paired.d_z
    if len(comparisons) > 1 or first.correlation is None or d_z.low is None or d_z.high is None or d_z.value is None:
        return note
    return (
        f"{note} The scores correlate with r = {first.correlation:+.2f}; in standard deviations of the "
        f"differences the mean is d_z = {signed(d_z.value, 2)} ({signed(d_z.low, 2)} to {signed(d_z.high, 2)})."
    )
