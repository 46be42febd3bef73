"""The generated sentences of the verdict: which is better, how sure, and at what cost."""

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
    """The levels behind the verdict, the start they share, and how the intervals are to be read."""
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
        parts.append(f"Intervals hold for all {len(findings.pairs)} pairs together (95%).")
        if pair.detectable_d is not None and pair.detectable is not None:
            parts.append(
                f"This design can detect d \N{GREATER-THAN OR EQUAL TO} {pair.detectable_d:.2f} for a pair, "
                f"up to {metric.size(pair.detectable)}."
            )
    if findings.verdict.state == "incomplete":
        parts.append(
            "A run without a result is a result about its method, not a gap to be filled in silently. Run it "
            "again with the same seed and configuration only."
        )
    return " ".join(parts)


def _from_start(findings: Findings) -> str:
    starts = {method.start for method in findings.methods}
    if None in starts or not starts:
        return ""
    shown = {findings.metric.level(start) for start in starts}
    return f"; the SFT model they start from has {shown.pop()}" if len(shown) == 1 else ""


def answers(findings: Findings) -> list[tuple[str, str]]:
    """Which is better, how sure, at what cost."""
    return [
        ("Which is better?", which(findings)),
        ("How sure?", how_sure(findings)),
        ("At what cost?", at_what_cost(findings)),
    ]


def which(findings: Findings) -> str:
    """The first answer."""
    state, pairs = findings.verdict.state, findings.pairs
    if state == "not_comparable":
        return "Not answered: the methods did not run under the same conditions."
    if state == "incomplete":
        return "Not answered: not every planned run has a result."
    if state == "single":
        return "There is one method only."
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
        f"The data fit anything from {baseline} ahead by {pair.metric.size(-low)} to {treatment} ahead by "
        f"{pair.metric.number(high)}."
    )


def _which_of_many(findings: Findings) -> str:
    wins = winners(findings.study.methods, findings.pairs)
    if not wins:
        return "Cannot tell: no pair separates." if findings.verdict.state != "equivalent" else "None of them."
    told = sum(map(len, wins.values()))
    rest = " All other pairs: cannot tell." if told < len(findings.pairs) else ""
    return (
        "; ".join(
            f"{method_label(method)} over {listed([method_label(loser) for loser in losers])}"
            for method, losers in wins.items()
        )
        + f".{rest}"
    )


def how_sure(findings: Findings) -> str:
    """The second answer: what the design could have seen, and how many seeds would see more."""
    known = [pair for pair in findings.pairs if pair.detectable is not None]
    if findings.verdict.state in ("not_comparable", "incomplete") or not known:
        return "No number of this study should be quoted as a result." if findings.pairs else "Nothing was compared."
    pair = max(known, key=lambda pair: pair.detectable or 0.0)
    metric, state = pair.metric, findings.verdict.state
    limit = f"A true difference under about {metric.size(pair.detectable)} would usually be missed."
    if state in ("better", "worse"):
        corrected = f", {len(findings.pairs)} pairs, corrected for looking at all" if len(findings.pairs) > 1 else ""
        return f"The 95% interval excludes zero ({min(pair.n)} seeds each{corrected}). {limit}"
    if state == "equivalent":
        return f"The {pair.inner_percent:g}% interval of the difference lies within the margin declared before. {limit}"
    return f"Not very. {limit}{seeds_advice(pair)}"


def seeds_advice(pair: Comparison) -> str:
    """How many seeds would find the margin (or half of what is detectable now), and half of that."""
    size = pair.margin or (pair.detectable or 0.0) / 2
    plans = [(size, pair.seeds_needed_for(size)), (size / 2, pair.seeds_needed_for(size / 2))]
    found = [
        f"{pair.metric.size(size)}, plan about {n:,} seeds per method"
        if place == 0
        else f"for {pair.metric.size(size)}, about {n:,}"
        for place, (size, n) in enumerate(plans)
        if n and pair.metric.number(size) != pair.metric.number(0.0)
    ]
    return f" To find {'; '.join(found)}." if found else ""


def at_what_cost(findings: Findings) -> str:
    """The third answer: time and memory against the baseline."""
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
    return "; both differences are clear" if all(sure) else "" if any(sure) else "; neither difference is clear"


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
