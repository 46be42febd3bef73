"""The generated sentence under each heading: what its numbers say, and what was not tested."""

from math import isfinite

from ..comparison.compare import Comparison
from ..comparison.verdict import format_interval
from ..findings import Findings
from ..plots.chart_index import ChartIndex
from ..statistics import Estimate
from ..study.metrics import counted, listed, method_label
from ..validity.reward_hacking import format_overoptimization
from ..validity.reward_model import RewardModel
from .verdict_text import at_what_cost, which


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
    wins, pairings = pair.seed_wins
    if findings.verdict.state == "incomplete":
        return "Not given while a planned run has no result; 'What if?' above shows how far it could move the answer."
    text = (
        f"{pair.metric.difference(pair.difference.value)} {format_interval(pair.metric, pair.difference, sign=True)}. "
    )
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
    apart = [pair for pair in pairs if pair.seed_wins[0] in (0, pair.seed_wins[1])]
    if not apart:
        return "The methods overlap: no method has all its seeds on one side of another's."
    behind: dict[str, list[str]] = {}
    for pair in apart:
        winner, loser = (pair.treatment, pair.baseline) if pair.seed_wins[0] else (pair.baseline, pair.treatment)
        behind.setdefault(method_label(winner), []).append(method_label(loser))
    return " ".join(
        f"Every {winner} seed is ahead of every {listed(losers)} seed." for winner, losers in behind.items()
    )


def learning_lede(findings: Findings, gallery: ChartIndex) -> str:
    """Under 'How did they learn?'."""
    if not gallery["learning"]:
        return "n/a: no learning curves were recorded by every method."
    ends = {method.label: method.level.value for method in findings.methods if method.level.value is not None}
    gains = [
        f"{method.label} {findings.metric.difference(method.level.value - method.start)}"
        for method in findings.methods
        if method.level.value is not None and method.start is not None
    ]
    if gains:
        return f"From the SFT start to the end of training: {', '.join(gains)} (not tested)."
    return f"At the end: {', '.join(f'{name} {findings.metric.level(value)}' for name, value in ends.items())}."


def proxy_sentences(findings: Findings) -> list[str]:
    """Under 'Did true quality follow the reward?', one for each method."""
    return [format_overoptimization(finding) for finding in findings.over_optimization]


def reward_model_lede(model: RewardModel) -> str:
    """Under 'How good was the reward model?'."""
    parts = []
    if model.accuracy:
        parts.append(f"It ranks {share_text(model.accuracy)} of {model.pairs:,} held-out pairs as their labels do.")
    if len(model.by_margin) > 1:
        low, high = model.by_margin[0], model.by_margin[-1]
        parts.append(
            f"By margin: {share_text(low.accuracy)} at {low.label}, {share_text(high.accuracy)} at {high.label}."
        )
    ece, temperature = model.calibration["ece"], model.calibration["temperature"]
    if ece is not None:
        mended = "" if temperature in (None, 1.0) else f", after dividing the scores by {temperature:.2f}"
        parts.append(
            f"Its probabilities are off by {100 * ece:.1f} points on average (expected calibration error{mended})."
        )
    return " ".join(parts) or "n/a: it was not measured on held-out pairs."


def gates_text(model: RewardModel) -> str:
    """The gates on validation pairs: at least 70.0% ranked right, reached 92.1%; ..."""
    parts = [
        f"{'at least' if gate.least else 'at most'} {_share(gate.limit, gate.least)} {gate.name}, "
        f"{'reached' if gate.passed else 'missed with'} {_share(gate.measured, gate.least)}"
        for gate in model.gates
    ]
    return f"Gates, on validation pairs: {'; '.join(parts)}." if parts else ""


def _share(value: float, percent: bool) -> str:
    return f"{100 * value:.1f}%" if percent else f"{value:.3f}"


def share_text(share: Estimate) -> str:
    """86.8% (85.2 to 88.3)."""
    value, low, high = (100 * (number or 0.0) for number in (share.value, share.low, share.high))
    return f"{value:.1f}% ({low:.1f} to {high:.1f})"


def strata_lede(findings: Findings) -> str:
    """Under 'Is it the same for every kind of prompt?'."""
    names = list(dict.fromkeys(row.name for row in findings.strata))
    clear = [
        f"{row.metric.label} on {row.name} ({method_label(method)} {row.metric.difference(estimate.value)})"
        for row in findings.strata
        for method, estimate in row.differences.items()
        if estimate.low is not None and estimate.high is not None and not estimate.low <= 0 <= estimate.high
    ]
    found = f"Beyond chance, each looked at alone: {listed(clear)}." if clear else "No difference is beyond chance."
    return f"{counted(len(names), 'stratum').replace('stratums', 'strata')}: {listed(names)}. {found}"


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
