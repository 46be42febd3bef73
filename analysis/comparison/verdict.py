"""Derives the verdict of a study, a state and a sentence, from its comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..statistics import Estimate
from ..study.metrics import MINUS, REASONS, Metric, counted, listed, method_label
from .compare import Comparison

State = Literal["better", "worse", "equivalent", "inconclusive", "incomplete", "not_comparable", "single"]
EXIT_CODES: dict[State, int] = {"incomplete": 3, "not_comparable": 4}
SYMBOLS: dict[State, str] = {
    "better": "\N{BLACK UP-POINTING TRIANGLE}",
    "worse": "\N{BLACK DOWN-POINTING TRIANGLE}",
    "equivalent": "=",
    "inconclusive": "\N{TILDE OPERATOR}",
    "incomplete": "\N{BALLOT X}",
    "not_comparable": "\N{BALLOT X}",
    "single": "1",
}


@dataclass(frozen=True)
class Verdict:
    """State, and the sentence in parts: lead (bold), numbers, and the detection limit of the design."""

    state: State
    lead: str
    numbers: str
    limit: str = ""

    @property
    def rest(self) -> str:
        """The sentence without the lead."""
        return f"{self.numbers}; {self.limit}." if self.limit else self.numbers

    @property
    def sentence(self) -> str:
        """The complete sentence."""
        return f"{self.lead} {self.rest}"

    @property
    def exit_code(self) -> int:
        """0 for a complete study, 3 for an incomplete one, 4 for one that cannot be compared."""
        return EXIT_CODES.get(self.state, 0)


def comparison_state(pair: Comparison) -> State:
    """State of the treatment by the deciding interval; equivalence requires a declared margin."""
    if pair.improvement_interval and pair.improvement_interval[0] > 0:
        return "better"
    if pair.improvement_interval and pair.improvement_interval[1] < 0:
        return "worse"
    return "equivalent" if pair.equivalent else "inconclusive"


def decide(
    *,
    metric: Metric,
    methods: Sequence[str],
    comparisons: Sequence[Comparison],
    level: Estimate,
    planned: int,
    unfinished: Sequence[str],
    violations: Sequence[str],
) -> Verdict:
    """Decide the verdict of a study.

    `unfinished`: one sentence per run without a usable result; `violations`: one per failed fairness check; `level`:
    the mean of the method if there is only one.
    """
    if violations:
        return _not_comparable(violations)
    if unfinished:
        done = f"{planned - len(unfinished)} of {planned} planned runs finished."
        return Verdict("incomplete", "No verdict:", f"{done} {_first_of(unfinished, 'more')}")
    if len(methods) == 1:
        return _single(metric, methods[0], level)
    return decide_pair(comparisons[0]) if len(comparisons) == 1 else _many(metric, methods, comparisons)


def _not_comparable(violations: Sequence[str]) -> Verdict:
    return Verdict("not_comparable", "Not comparable:", _first_of(violations, "failed fairness checks more"))


def _first_of(sentences: Sequence[str], more: str) -> str:
    first = sentences[0].rstrip(".")
    return f"{first}." if len(sentences) == 1 else f"{first}; {len(sentences) - 1} {more} below."


def _single(metric: Metric, method: str, level: Estimate) -> Verdict:
    rest = f"{metric.level(level.value)} {format_interval(metric, level)}; there is no other method to compare with."
    return Verdict("single", f"One method, {method_label(method)}:", rest)


def format_interval(metric: Metric, estimate: Estimate, name: str = "95% CI ", sign: bool = False) -> str:
    """Format an interval, (95% CI -3.1 to +3.9), or the reason why it does not exist."""
    if estimate.low is None or estimate.high is None:
        return f"(no interval: {REASONS.get(estimate.reason or '', estimate.reason)})"
    write = metric.signed if sign else metric.number
    return f"({name}{write(estimate.low)} to {write(estimate.high)})"


def format_subtraction(pair: Comparison) -> str:
    """Format the direction of a comparison: GRPO - PPO."""
    return f"{method_label(pair.treatment)} {MINUS} {method_label(pair.baseline)}"


def _seeds(pair: Comparison) -> str:
    return f"{pair.n[0]} vs {pair.n[1]} seeds"


def _detects(pair: Comparison, only: str = "only ") -> str:
    if pair.detectable_d is None:
        return "one seed cannot detect a difference"
    return f"this design can {only}detect d \N{GREATER-THAN OR EQUAL TO} {pair.detectable_d:.2f}"


def decide_pair(pair: Comparison) -> Verdict:
    """The verdict of one comparison, from its intervals."""
    state, metric = comparison_state(pair), pair.metric
    interval = format_interval(metric, pair.difference, sign=True)
    number = f"{metric.difference(pair.difference.value)} {interval}, {_seeds(pair)}"
    if state in ("better", "worse"):
        lead = f"{method_label(pair.treatment)} is {state} than {method_label(pair.baseline)}:"
        return Verdict(state, lead, number, f"{_detects(pair, '')}{_too_small(pair)}")
    if state == "equivalent":
        inner = format_interval(metric, pair.inner, f"{pair.inner_percent:g}% CI ", sign=True)
        rest = f"{format_subtraction(pair)} = {metric.difference(pair.difference.value)} {inner}, {_seeds(pair)}"
        return Verdict(state, f"Equivalent within {metric.size(pair.margin)}:", rest, _outer(pair))
    return Verdict(state, "Inconclusive:", f"{format_subtraction(pair)} = {number}", _detects(pair))


def _outer(pair: Comparison) -> str:
    return f"the 95% interval is {format_interval(pair.metric, pair.difference, '', sign=True).strip('()')}"


def _too_small(pair: Comparison) -> str:
    return (
        f"; the interval lies within the declared margin of {pair.metric.size(pair.margin)}" if pair.equivalent else ""
    )


def _many(metric: Metric, methods: Sequence[str], comparisons: Sequence[Comparison]) -> Verdict:
    wins = winners(methods, comparisons)
    if wins:
        state: State = "worse" if list(wins) == [comparisons[0].baseline] else "better"
        return Verdict(state, _beats(wins), _margins(metric, wins, comparisons))
    if all(comparison_state(pair) == "equivalent" for pair in comparisons):
        return Verdict(
            "equivalent",
            f"Equivalent within {metric.size(comparisons[0].margin)}:",
            f"all {len(comparisons)} comparisons.",
        )
    largest = max(comparisons, key=lambda pair: abs(pair.difference.value or 0.0))
    numbers = f"{metric.difference(largest.difference.value)} {format_interval(metric, largest.difference, sign=True)}"
    rest = f"no interval of {len(comparisons)} comparisons excludes zero; the largest difference is "
    numbers = f"{format_subtraction(largest)} = {numbers}, {_seeds(largest)}"
    return Verdict("inconclusive", "Inconclusive:", f"{rest}{numbers}", _detects(largest))


def winners(methods: Sequence[str], comparisons: Sequence[Comparison]) -> dict[str, list[str]]:
    """Methods that are better than others, with those others; the method with most wins first."""
    beaten: dict[str, list[str]] = {method: [] for method in methods}
    for pair in comparisons:
        state = comparison_state(pair)
        if state == "better":
            beaten[pair.treatment].append(pair.baseline)
        elif state == "worse":
            beaten[pair.baseline].append(pair.treatment)
    ordered = sorted(beaten, key=lambda method: -len(beaten[method]))
    return {method: beaten[method] for method in ordered if beaten[method]}


def _beats(wins: dict[str, list[str]]) -> str:
    parts = [
        f"{method_label(method)} beats {listed([method_label(loser) for loser in losers])}"
        for method, losers in wins.items()
    ]
    return f"{'; '.join(parts)}:"


def _margins(metric: Metric, wins: dict[str, list[str]], comparisons: Sequence[Comparison]) -> str:
    best = next(iter(wins))
    against = {
        other: difference_from(best, pair)
        for pair in comparisons
        for other in (pair.treatment, pair.baseline)
        if best in (pair.treatment, pair.baseline) and other != best
    }
    over = [
        f"{metric.difference(against[method].value)} over {method_label(method)} "
        f"{format_interval(metric, against[method], name='', sign=True)}"
        for method in wins[best]
    ]
    text = f"{method_label(best)} is at {listed(over)}" if len(wins) > 1 else listed(over)
    return f"{text}, {_seeds_each(comparisons)}.{_open(metric, against, wins[best])}"


def _open(metric: Metric, against: dict[str, Estimate], beaten: list[str]) -> str:
    rest = [
        f"{method_label(method)} ({metric.signed(estimate.value)}, {metric.signed(estimate.low)} to "
        f"{metric.signed(estimate.high)})"
        for method, estimate in against.items()
        if method not in beaten
    ]
    return f" The comparison is inconclusive for {listed(rest, 'or')}." if rest else ""


def difference_from(method: str, pair: Comparison) -> Estimate:
    """The difference of a comparison from the side of one method: method minus the other."""
    difference = pair.difference
    if method == pair.treatment or difference.value is None:
        return difference
    low, high = (None if end is None else -end for end in (difference.high, difference.low))
    return Estimate(value=-difference.value, low=low, high=high, reason=difference.reason)


def _seeds_each(comparisons: Sequence[Comparison]) -> str:
    numbers = {n for pair in comparisons for n in pair.n}
    few, most = min(numbers), max(numbers)
    return f"{counted(most, 'seed')} each" if few == most else f"{few} to {most} seeds each"
