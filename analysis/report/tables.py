"""Numbers and intervals as the tables of the report print them."""

from math import isfinite

from ..findings import Findings
from ..statistics import Estimate
from ..study.methods import Method
from ..study.metrics import MINUS, Metric, explain, signed


def fixed(value: float | None, digits: int = 2) -> str:
    """A number with this many decimals; n/a for None, NaN and Inf."""
    return "n/a" if value is None or not isfinite(value) else f"{value:.{digits}f}".replace("-", MINUS)


def ends(metric: Metric, estimate: Estimate) -> str:
    """-3.1 to +3.9, or why there is no interval."""
    if estimate.low is None or estimate.high is None:
        return f"no interval: {explain(estimate.reason)}"
    return f"{metric.signed(estimate.low)} to {metric.signed(estimate.high)}"


def difference(metric: Metric, estimate: Estimate) -> str:
    """+0.4 points (-3.1 to +3.9); n/a without an estimate."""
    interval = f" ({ends(metric, estimate)})" if estimate.value is not None else ""
    return f"{metric.difference(estimate.value)}{interval}"


def standard(estimate: Estimate) -> str:
    """A standardized effect with its interval, or why there is none."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return f"n/a: {explain(estimate.reason)}"
    return f"{signed(estimate.value, 2)} ({signed(estimate.low, 2)} to {signed(estimate.high, 2)})"


def only_other_method(findings: Findings) -> Method | None:
    """The method compared with the baseline in a study of two methods; None in other studies."""
    others = [method for method in findings.methods if method is not findings.baseline]
    return others[0] if len(others) == 1 else None


def minus_column(findings: Findings, other: Method) -> str:
    """The header of a column of differences."""
    return f"{other.label} {MINUS} {findings.baseline.label} (95% CI)"
