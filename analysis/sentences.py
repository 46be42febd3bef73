"""The generated sentences under each heading: what the numbers say, and what was not tested."""

from math import isfinite

from .compare import Comparison
from .costs import Cost
from .findings import Findings
from .gallery import Gallery
from .metrics import REASONS, counted, listed, method_label, significant
from .statistics import Estimate
from .verdict import State, interval, winners

TIMES = "\N{MULTIPLICATION SIGN}"


def ratio_text(estimate: Estimate) -> str:
    """0.82x (0.78 to 0.86), or why there is no interval."""
    if estimate.value is None:
        return f"n/a: {REASONS.get(estimate.reason or '', estimate.reason or '')}"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.2f}{TIMES} (no interval: {REASONS.get(estimate.reason or '', estimate.reason or '')})"
    return f"{estimate.value:.2f}{TIMES} ({estimate.low:.2f} to {estimate.high:.2f})"


def sub_verdict(findings: Findings) -> str:
    """The levels behind the verdict, the start they share, and how the intervals are to be read."""
    metric = findings.metric
    levels = [f"{arm.label} {metric.level(arm.level.value)}" for arm in findings.arms if arm.level.value is not None]
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
    starts = {arm.start for arm in findings.arms}
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
        ahead, ends = (treatment if state == "better" else baseline), pair.benefit or (0.0, 0.0)
        least, most = sorted(map(abs, ends))
        return f"{ahead}, by {pair.metric.number(least)} to {pair.metric.size(most)}."
    if state == "equivalent":
        return f"Neither: the difference is within the declared margin of {pair.metric.size(pair.margin)}."
    return f"Cannot tell. {_both_ends(pair, treatment, baseline)}"


def _both_ends(pair: Comparison, treatment: str, baseline: str) -> str:
    if pair.benefit is None:
        return f"There is no interval: {REASONS.get(pair.difference.reason or '', '')}."
    low, high = pair.benefit
    return (
        f"The data fit anything from {baseline} ahead by {pair.metric.size(-low)} to {treatment} ahead by "
        f"{pair.metric.number(high)}."
    )


def _which_of_many(findings: Findings) -> str:
    wins = winners(findings.study.arms, findings.pairs)
    if not wins:
        return "Cannot tell: no pair separates." if findings.verdict.state != "equivalent" else "None of them."
    told = sum(map(len, wins.values()))
    rest = " All other pairs: cannot tell." if told < len(findings.pairs) else ""
    return (
        "; ".join(
            f"{method_label(arm)} over {listed([method_label(loser) for loser in losers])}"
            for arm, losers in wins.items()
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
    plans = [(size, pair.seeds_for(size)), (size / 2, pair.seeds_for(size / 2))]
    found = [
        f"{pair.metric.size(size)}, plan about {n:,} seeds per method"
        if place == 0
        else f"for {pair.metric.size(size)}, about {n:,}"
        for place, (size, n) in enumerate(plans)
        if n
    ]
    return f" To find {'; '.join(found)}." if found else ""


def at_what_cost(findings: Findings) -> str:
    """The third answer: time and memory against the baseline."""
    baseline = findings.baseline
    time, memory = (
        next(cost for cost in findings.costs if cost.key == key) for key in ("seconds", "peak_memory_bytes")
    )
    parts = [text for arm in findings.arms if arm is not baseline and (text := _cost_of(arm.name, time, memory))]
    if not parts:
        return (
            "n/a: time and memory were not measured for every method." if len(findings.arms) > 1 else _alone(findings)
        )
    if len(parts) > 1:
        return " ".join(_of_many(findings, cost, name) for cost, name in ((time, "Time"), (memory, "Peak memory")))
    return f"{parts[0]} of {baseline.label}{_is_clear(time, memory)}."


def _of_many(findings: Findings, cost: Cost, name: str) -> str:
    shown = [f"{method_label(arm)} {ratio.value:.2f}{TIMES}" for arm, ratio in cost.ratios.items() if ratio.value]
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


def _cost_of(arm: str, time: Cost, memory: Cost) -> str:
    shown = [
        f"{cost.ratios[arm].value:.2f}{TIMES} the {name}"
        for cost, name in ((time, "time"), (memory, "peak memory"))
        if arm in cost.ratios and cost.ratios[arm].value is not None
    ]
    return f"{method_label(arm)} needed {listed(shown)}" if shown else ""


def effect_lede(findings: Findings) -> str:
    """Under 'How big is the difference?'."""
    if not findings.pairs:
        return "Nothing to compare: the study has one method."
    if len(findings.pairs) > 1:
        return (
            which(findings)
            if findings.verdict.state not in ("incomplete", "not_comparable")
            else ("Shown for completeness; these differences are no result.")
        )
    pair = findings.pairs[0]
    wins, pairings = pair.wins
    if findings.verdict.state == "incomplete":
        return "Not given while a planned run has no result; 'What if?' above shows how far it could move the answer."
    text = f"{pair.metric.difference(pair.difference.value)} {interval(pair.metric, pair.difference, sign=True)}. "
    text += (
        f"A random {method_label(pair.treatment)} seed beats a random {method_label(pair.baseline)} seed in {wins:g} "
    )
    conditions = " Not a result: the conditions differ." if findings.verdict.state == "not_comparable" else ""
    return f"{text}of {pairings} pairings.{conditions}"


def seeds_lede(findings: Findings) -> str:
    """Under 'What did each seed score?'."""
    pairs = [
        pair for pair in findings.pairs if all(pair.scores) and all(isfinite(s) for row in pair.scores for s in row)
    ]
    if not pairs:
        return "Every seed of the study, those without a result included."
    apart = [pair for pair in pairs if pair.wins[0] in (0, pair.wins[1])]
    if not apart:
        return "The methods overlap: no method has all its seeds on one side of another's."
    behind: dict[str, list[str]] = {}
    for pair in apart:
        winner, loser = (pair.treatment, pair.baseline) if pair.wins[0] else (pair.baseline, pair.treatment)
        behind.setdefault(method_label(winner), []).append(method_label(loser))
    return " ".join(
        f"Every {winner} seed is ahead of every {listed(losers)} seed." for winner, losers in behind.items()
    )


def learning_lede(findings: Findings, gallery: Gallery) -> str:
    """Under 'How did they learn?'."""
    if not gallery["learning"]:
        return "n/a: no learning curves were recorded by every method."
    ends = {arm.label: arm.level.value for arm in findings.arms if arm.level.value is not None}
    gains = [
        f"{arm.label} {findings.metric.difference(arm.level.value - arm.start)}"
        for arm in findings.arms
        if arm.level.value is not None and arm.start is not None
    ]
    if gains:
        return f"From the SFT start to the end of training: {', '.join(gains)} (not tested)."
    return f"At the end: {', '.join(f'{name} {findings.metric.level(value)}' for name, value in ends.items())}."


def kl_lede(findings: Findings) -> str:
    """Under 'What did the reward cost in KL, and in length?'."""
    parts = []
    for name, words in (("final/kl", "Distance from the SFT model"), ("final/avg_response_length", "Answer length")):
        pairs = [pair for pair in findings.exploratory if pair.metric.name == name]
        shown = [
            f"{method_label(pair.treatment)} {pair.metric.difference(pair.difference.value)}{_ends(pair)}"
            for pair in pairs
        ]
        if shown:
            parts.append(f"{words} against {findings.baseline.label}: {', '.join(shown)}.")
    return " ".join(parts) or "n/a: neither KL nor answer length was measured at the end by every method."


def _ends(pair: Comparison) -> str:
    low, high = pair.difference.low, pair.difference.high
    return "" if low is None else f" ({pair.metric.signed(low)} to {pair.metric.signed(high)})"


def cost_lede(findings: Findings) -> str:
    """Under 'What did it cost?'."""
    return at_what_cost(findings)


def fairness_lede(findings: Findings) -> str:
    """Under 'Was the comparison fair?'."""
    fairness = findings.fairness
    passed, whole = fairness.count("ok"), len(fairness.checks)
    rest = [
        counted(fairness.count("failed"), "failure") if fairness.count("failed") else "",
        counted(fairness.count("warning"), "warning") if fairness.count("warning") else "",
        f"{fairness.count('unknown')} not known" if fairness.count("unknown") else "",
    ]
    told = "; ".join(part for part in rest if part)
    start = "Yes" if fairness.ok and not told else "As far as it was checked" if fairness.ok else "No"
    end = "" if fairness.ok else " A failed check takes the verdict away."
    return f"{start}: {passed} of {whole} checks passed{f'; {told}' if told else ''}.{end}"


def samples_lede(findings: Findings) -> str:
    """Under 'What do the answers look like?'."""
    samples = findings.samples
    if samples.reason:
        return f"n/a: {samples.reason}."
    return (
        f"Held-out prompts picked by a fixed rule, not by hand; seed {samples.seed} of every method. Answers are "
        "shown as plain text: nothing in them is run or rendered."
    )


def runs_lede(findings: Findings) -> str:
    """Under 'Every run'."""
    runs = findings.study.runs
    words = {
        "finished": "finished",
        "failed": "failed",
        "interrupted": "interrupted",
        "running": "still running",
        "missing": "missing",
    }
    tally = [f"{n} {word}" for status, word in words.items() if (n := sum(run.status == status for run in runs))]
    extra = sum(not run.counted for run in runs)
    known = "planned" if findings.study.planned else "found"
    return f"{len(runs) - extra} {known}: {', '.join(tally)}{f'; {extra} shown and not counted' if extra else ''}."


PILLS: dict[State, str] = {
    "better": "verdict",
    "worse": "verdict",
    "equivalent": "verdict: equivalent",
    "inconclusive": "verdict: inconclusive",
    "incomplete": "incomplete",
    "not_comparable": "not comparable",
    "single": "one method",
}
