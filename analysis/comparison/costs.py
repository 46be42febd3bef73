"""Cost of the finished runs: tokens, wall-clock time, peak memory and price, with ratios to the baseline."""

from collections.abc import Sequence
from dataclasses import dataclass

from alignbench.core import metric_names

from .. import statistics
from ..statistics import Estimate
from ..study.curves import token_unit
from ..study.load import Run, Study
from ..study.options import Declared

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One kind of cost: `values` per run of each method, in units of 1 / `divisor`, and ratios of geometric means."""

    key: str
    label: str
    divisor: float
    values: dict[str, tuple[float, ...]]
    ratios: dict[str, Estimate]
    reason: str | None = None


def compute_costs(study: Study, declared: Declared) -> list[Cost]:
    """Compute tokens, time, memory and price of the finished runs of every method."""
    price = declared.price_per_hour
    divisor, unit = token_unit([run.ledger.get("tokens", 0.0) for run in study.runs])
    rows = [
        _cost(study, declared, "tokens", f"Generated tokens ({unit})", metric_names.TOKENS, divisor),
        _cost(study, declared, "seconds", "Wall-clock time (s)", metric_names.SECONDS, 1.0),
        _cost(study, declared, "peak_memory_bytes", "Peak memory (GiB)", metric_names.PEAK_MEMORY, GIB),
    ]
    if price is None:
        reason = "analysis.price_per_hour is not set"
        return [*rows, Cost(key="price", label="Price", divisor=1, values={}, ratios={}, reason=reason)]
    label = f"Price (at ${price:,.2f} per device-hour)"
    time = rows[1]
    return [
        *rows,
        Cost(
            key="price", label=label, divisor=3600 / price, values=time.values, ratios=time.ratios, reason=time.reason
        ),
    ]


def _cost(study: Study, declared: Declared, key: str, label: str, metric: str, divisor: float) -> Cost:
    values = {method: tuple(_spent(study.runs_of(method), key, metric)) for method in study.methods}
    ratios = {
        method: statistics.ratio(values[method], values[declared.baseline])
        for method in study.methods
        if method != declared.baseline
    }
    reason = None if all(values.values()) else "not measured for every method"
    return Cost(key=key, label=label, divisor=divisor, values=values, ratios=ratios, reason=reason)


def _spent(runs: Sequence[Run], key: str, metric: str) -> list[float]:
    spent = [run.ledger.get(key, run.metrics.get(metric)) for run in runs if run.status == "finished"]
    return [float(number) for number in spent if number is not None]
