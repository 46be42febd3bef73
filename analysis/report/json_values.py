"""Numbers, estimates and intervals as JSON values."""

from math import isfinite
from typing import Any

from ..statistics import Estimate


def finite(value: float | None) -> float | None:
    """The number, or None for NaN and Inf, which JSON does not have."""
    return None if value is None or not isfinite(value) else value


def estimate_data(estimate: Estimate) -> dict[str, Any]:
    """An estimate with its 95% confidence interval; `reason` says why one of them is null."""
    interval = None if estimate.low is None else [estimate.low, estimate.high]
    return {"estimate": finite(estimate.value), "ci95": interval, "reason": estimate.reason}
