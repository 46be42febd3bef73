"""Verdict sentences: which method is better, how certain that is, and at what cost."""

from ..comparison.compare import Comparison
from ..comparison.costs import Cost
from ..comparison.verdict import State, winners
from ..findings import Findings
from ..statistics import Estimate
from ..study.metrics import explain, listed, method_label, significant

TIMES = "\N{MULTIPLICATION SIGN}"


def ratio_text(estimate: Estimate) -> str:
    """0.82x (0.78 to 0.86), or why there is no interval."""
    if estimate.value is None:
        return f"n/a: {explain(estimate.reason)}"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f}{TIMES} (no interval: {explain(estimate.reason)})"
    return f"{estimate.value:.2f}{TIMES} ({estimate.low:.2f} to {estimate.high:.2f})"


def format_levels(findings: Findings) -> str:
    """The mean of each method, the SFT start, and the scope of the intervals."""
    metric = findings.metric
    levels = [
        f"{method.label} {metric.level(method.level.value)}"
        for method in findings.methods
        if method.level.value is not None
    ]
    parts = []
    if levels:
        parts.append(f"{metric.label[0].upper()}{metric.label[1:]}: {', '.join(levels)}{_from_start(findings)}.")
    if len(findings.pairs) > 1:
        pair = max(findings.pairs, key=lambda pair: pair.detectable or 0.0)
        parts.append(f"Intervals are simultaneous over all {len(findings.pairs)} comparisons (95%).")
        if pair.detectable_d is not None and pair.detectable is not None:
            parts.append(
                f"This design detects d \N{GREATER-THAN OR EQUAL TO} {pair.detectable_d:.2f} for one comparison, "
                f"up to {metric.size(pair.detectable)}."
            )
    if findings.verdict.state == "incomplete":
        parts.append(
            "A run without a result is itself a result about its method. Repeat it only with the same seed and "
            "configuration."
        )
    return " ".join(parts)


def _from_start(findings: Findings) -> str:
    starts = {method.start for method in findings.methods}
    if None in starts or not starts:
        return ""
    shown = {findings.metric.level(start) for start in starts}
    return f"; SFT start {shown.pop()}" if len(shown) == 1 else ""


def answers(findings: Findings) -> list[tuple[str, str]]:
    """Which is better, how sure, at what cost."""
    return [
        ("Which is better?", which(findings)),
        ("How sure?", how_sure(findings)),
        ("At what cost?", at_what_cost(findings)),
    ]


def which(findings: Findings) -> str:
    """Which method is better, and by how much."""
    state, pairs = findings.verdict.state, findings.pairs
    if state == "not_comparable":
        return "No answer: the methods did not run under the same conditions."
    if state == "incomplete":
        return "No answer: not every planned run has a result."
    if state == "single":
        return "The study has one method."
    if len(pairs) > 1:
        return _which_of_many(findings)
    pair = pairs[0]
    treatment, baseline = method_label(pair.treatment), method_label(pair.baseline)
    if state in ("better", "worse"):
        ahead, ends = (treatment if state == "better" else baseline), pair.improvement_interval or (0.0, 0.0)
        least, most = sorted(map(abs, ends))
        return f"{ahead}, by {pair.metric.signed(least).lstrip('+')} to {pair.metric.size(most)}."
    if state == "equivalent":
        return f"Neither: the difference is within the declared margin of {pair.metric.size(pair.margin)}."
    return f"Cannot tell. {_both_ends(pair, treatment, baseline)}"


def _both_ends(pair: Comparison, treatment: str, baseline: str) -> str:
    if pair.improvement_interval is None:
        return f"There is no interval: {explain(pair.difference.reason)}."
    low, high = pair.improvement_interval
    return (
        f"The data are compatible with anything from {baseline} ahead by {pair.metric.size(-low)} to {treatment} "
        f"ahead by {pair.metric.number(high)}."
    )


def _which_of_many(findings: Findings) -> str:
    wins = winners(findings.study.methods, findings.pairs)
    if not wins:
        return "Cannot tell: no interval excludes zero." if findings.verdict.state != "equivalent" else "None of them."
    told = sum(map(len, wins.values()))
    rest = " All other comparisons: cannot tell." if told < len(findings.pairs) else ""
    return (
        "; ".join(
            f"{method_label(method)} over {listed([method_label(loser) for loser in losers])}"
            for method, losers in wins.items()
        )
        + f".{rest}"
    )


def how_sure(findings: Findings) -> str:
    """Which differences the design detects, and how many seeds would detect smaller ones."""
    known = [pair for pair in findings.pairs if pair.detectable is not None]
    if findings.verdict.state in ("not_comparable", "incomplete") or not known:
        return "Do not quote any number of this study as a result." if findings.pairs else "There is no comparison."
    pair = max(known, key=lambda pair: pair.detectable or 0.0)
    metric, state = pair.metric, findings.verdict.state
    limit = f"True differences below about {metric.size(pair.detectable)} would usually be missed."
    if state in ("better", "worse"):
        corrected = f", corrected for {len(findings.pairs)} comparisons" if len(findings.pairs) > 1 else ""
        return f"The 95% interval excludes zero ({min(pair.n)} seeds each{corrected}). {limit}"
    if state == "equivalent":
        return f"The {pair.inner_percent:g}% interval of the difference lies within the declared margin. {limit}"
    return f"Not certain. {limit}{seeds_advice(pair)}"


def seeds_advice(pair: Comparison) -> str:
    """Seeds needed to detect the margin (or half of the detectable difference), and half of that."""
    size = pair.margin or (pair.detectable or 0.0) / 2
    plans = [(size, pair.seeds_needed_for(size)), (size / 2, pair.seeds_needed_for(size / 2))]
    found = [
        f"{pair.metric.size(size)}, plan about {n:,} seeds per method"
        if place == 0
        else f"for {pair.metric.size(size)}, about {n:,}"
        for place, (size, n) in enumerate(plans)
        if n and pair.metric.number(size) != pair.metric.number(0.0)
    ]
    return f" To detect {'; '.join(found)}." if found else ""


def at_what_cost(findings: Findings) -> str:
    """Time and peak memory relative to the baseline."""
    baseline = findings.baseline
    time, memory = (
        next(cost for cost in findings.costs if cost.key == key) for key in ("seconds", "peak_memory_bytes")
    )
    parts = [
        text for method in findings.methods if method is not baseline and (text := _cost_of(method.name, time, memory))
    ]
    if not parts:
        return (
            "n/a: time and memory were not measured for every method."
            if len(findings.methods) > 1
            else _alone(findings)
        )
    if len(parts) > 1:
        return " ".join(_of_many(findings, cost, name) for cost, name in ((time, "Time"), (memory, "Peak memory")))
    return f"{parts[0]} of {baseline.label}{_is_clear(time, memory)}."


def _of_many(findings: Findings, cost: Cost, name: str) -> str:
    shown = [f"{method_label(method)} {ratio.value:.2f}{TIMES}" for method, ratio in cost.ratios.items() if ratio.value]
    return f"{name}: {', '.join(shown)} that of {findings.baseline.label}." if shown else f"{name}: n/a."


def _is_clear(*costs: Cost) -> str:
    """Whether each ratio could be chance."""
    ratios = [ratio for cost in costs for ratio in cost.ratios.values() if ratio.low is not None]
    sure = [ratio.low > 1 or (ratio.high or 0.0) < 1 for ratio in ratios if ratio.low is not None]
    if len(sure) < len(costs):
        return ""
    return "; both intervals exclude 1" if all(sure) else "" if any(sure) else "; neither interval excludes 1"


def _alone(findings: Findings) -> str:
    time = next(cost for cost in findings.costs if cost.key == "seconds")
    own = time.values.get(findings.baseline.name)
    return f"{significant(sum(own) / len(own))} s per run." if own else "n/a: no time was measured."


def _cost_of(method: str, time: Cost, memory: Cost) -> str:
    shown = [
        f"{cost.ratios[method].value:.2f}{TIMES} the {name}"
        for cost, name in ((time, "time"), (memory, "peak memory"))
        if method in cost.ratios and cost.ratios[method].value is not None
    ]
    return f"{method_label(method)} needed {listed(shown)}" if shown else ""


PILLS: dict[State, str] = {
    "better": "verdict",
    "worse": "verdict",
    "equivalent": "verdict: equivalent",
    "inconclusive": "verdict: inconclusive",
    "incomplete": "incomplete",
    "not_comparable": "not comparable",
    "single": "one method",
}
