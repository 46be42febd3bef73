"""What the design itself leaves open: prompts that were not drawn anew, and pairs of seeds that were refused."""

from collections.abc import Sequence

from ..comparison.compare import Comparison
from ..comparison.paired_design import PairedDesign
from ..comparison.variance import VarianceByPrompt
from ..comparison.verdict import format_subtraction, interval
from ..study.metrics import signed
from .warnings import ReportWarning


def prompt_warnings(rows: Sequence[VarianceByPrompt]) -> list[ReportWarning]:
    """The interval that decides speaks of these prompts; this is how far it would be from one for all prompts."""
    known = [row for row in rows if row.crossed.new_both.low is not None]
    if not known:
        return []
    lost = [row for row in known if not row.holds_for_new_prompts and _excludes_zero(row)]
    row = lost[0] if lost else max(known, key=_width)
    metric, both = row.pair.metric, row.crossed.new_both
    shown = interval(metric, both, "", sign=True).strip("()")
    which = f" for {format_subtraction(row.pair)}" if len(rows) > 1 else ""
    text = f"The interval is about new seeds on these {row.prompts:,} prompts; for new prompts too it is {shown}{which}"
    ending = ", which includes zero: the verdict holds for these prompts only." if lost else "."
    return [ReportWarning("limits the verdict", text + ending, f"new prompts too: {shown}")]


def _excludes_zero(row: VarianceByPrompt) -> bool:
    low, high = row.pair.difference.low, row.pair.difference.high
    return low is not None and high is not None and not low <= 0 <= high


def _width(row: VarianceByPrompt) -> float:
    return (row.crossed.new_both.high or 0.0) - (row.crossed.new_both.low or 0.0)


def pairing_warnings(pairing: PairedDesign) -> list[ReportWarning]:
    """Pairs that were declared and are refused, so that nobody takes the report for one of pairs."""
    if pairing.refusal is None:
        return []
    text = f"analysis.pairing=seed was declared and is refused: {pairing.refusal}. The seeds are compared as groups."
    return [ReportWarning("limits the verdict", text, "pairing by seed is refused")]


def format_pairing_note(pairing: PairedDesign, pairs: Sequence[Comparison]) -> str:
    """How the seeds were compared and what the differences within seeds show, for the caption of the difference."""
    if not pairing.by_seed or not pairs or pairs[0].paired is None:
        return ""
    told = "Seeds are compared one by one, as declared: same start and same prompt order for each seed."
    first, d_z = pairs[0].paired, pairs[0].paired.d_z
    if len(pairs) > 1 or first.correlation is None or d_z.low is None or d_z.high is None or d_z.value is None:
        return told
    return (
        f"{told} Their scores correlate by {first.correlation:+.2f}; in units of the spread of the differences the "
        f"mean is d_z = {signed(d_z.value, 2)} ({signed(d_z.low, 2)} to {signed(d_z.high, 2)})."
    )
