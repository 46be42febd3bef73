"""Report texts of the LLM judge: result sentences, table, warnings and terminal summary."""

from collections.abc import Callable
from typing import Literal

from ..statistics import Estimate
from ..study.metrics import counted, listed, method_label, significant
from .judgement import Judgement, MethodPairResult
from .tally import Tally
from .trial import LOSS, TIE, WIN

Level = Literal["limits the verdict", "note"]
Row = tuple[str, list[str]]
MANY_TIES = 0.30
ALPHA = 0.05
REASONS = {
    "nothing_judged": "nothing was judged",
    "too_many_invalid": "too many answer pairs without a verdict",
    "few_prompts": "fewer than 30 prompts",
    "few_labels": "fewer than 10 labelled prompts",
    "all_the_same": "all verdicts are equal",
    "no_length_difference": "no answer differs in length",
    "separated": "complete separation",
}


def format_percent(value: float | None) -> str:
    """Format a share: 48.6%."""
    return "n/a" if value is None else f"{100 * value:.1f}%"


def format_share(estimate: Estimate) -> str:
    """Format a share with its interval, 48.6% (40.3 to 57.0), or the reason why it does not exist."""
    if estimate.value is None:
        return f"n/a: {REASONS.get(estimate.reason or '', estimate.reason or '')}"
    if estimate.low is None or estimate.high is None:
        return f"{format_percent(estimate.value)} (no interval)"
    return f"{format_percent(estimate.value)} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def format_dollars(amount: float) -> str:
    """Format dollars: $1.84; less than a cent as $0.0031; zero as $0."""
    return "$0" if amount == 0 else f"${amount:.2f}" if amount >= 0.01 else f"${significant(amount, 2)}"


def format_p_value(p: float | None) -> str:
    """Format a p-value: 0.031, or <0.001."""
    return "n/a" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def format_summary(judgement: Judgement) -> str:
    """Caption of the section: the judge, and the number of prompts."""
    if judgement.reason:
        return f"n/a: {judgement.reason}."
    available = f" of {judgement.available:,}" if judgement.available > judgement.prompts else ""
    return (
        f"{judgement.judge.model} compared the answers of every two methods to the same prompt at the same seed, in "
        f"both orders, on {judgement.prompts:,}{available} held-out prompts. The judge does not decide the verdict."
    )


def format_result(match: MethodPairResult) -> str:
    """GRPO wins 18, ties 35 and loses 20 of 73 answer pairs against PPO. Score 48.6% (40.3 to 57.0): ..."""
    found = match.tally
    treatment, baseline = method_label(found.treatment), method_label(found.baseline)
    if not found.judged:
        return f"{treatment} and {baseline}: nothing was judged."
    counts = (
        f"{treatment} wins {found.win:,}, ties {found.tie:,} and loses {found.loss:,} of {found.judged:,} answer pairs"
    )
    invalid = f"; {counted(found.invalid, 'answer pair')} without a verdict" if found.invalid else ""
    return f"{counts} against {baseline}{invalid}. Score {format_share(found.score)}: {format_preference(found)}."


def format_sample(judgement: Judgement | None, seed: int | None, prompt_id: str) -> list[str]:
    """The judge's results on the answers to one prompt at one seed; empty if they were not judged."""
    if judgement is None or seed is None:
        return []
    found = []
    for match in judgement.matches:
        treatment, baseline = match.tally.treatment, match.tally.baseline
        result = judgement.results.get((treatment, baseline, seed, prompt_id))
        if result is not None:
            found.append(_sample_result(method_label(treatment), method_label(baseline), result))
    return found


def _sample_result(treatment: str, baseline: str, result: int) -> str:
    if result in (WIN, LOSS):
        winner, loser = (treatment, baseline) if result == WIN else (baseline, treatment)
        return f"{winner} is better than {loser}, in both orders"
    return f"{treatment} and {baseline} {'tie' if result == TIE else 'got no verdict'}"


def format_preference(found: Tally) -> str:
    """The method that the judge prefers, if the interval excludes 50%."""
    low, high = found.score.low, found.score.high
    if low is None or high is None:
        return "no preference can be inferred"
    if low > 0.5 or high < 0.5:
        return f"the judge prefers {method_label(found.treatment if low > 0.5 else found.baseline)}"
    return "the interval includes 50%, so no preference is shown"


def table_rows(judgement: Judgement) -> list[Row]:
    """Rows of the table: label, and one cell for every two methods."""
    rows: list[tuple[str, Callable[[MethodPairResult], str]]] = [
        ("wins / ties / losses", lambda m: f"{m.tally.win:,} / {m.tally.tie:,} / {m.tally.loss:,}"),
        ("answer pairs without a verdict; score if all were lost, or won", _invalid),
        ("score: wins plus half of the ties", lambda m: format_share(m.tally.score)),
        ("score at equal length", lambda m: format_share(m.tally.length_controlled)),
        ("score, mean of both orders", lambda m: format_share(m.tally.mean_of_orders)),
        ("score from one order only: presented first; second", _one_order),
        ("same verdict in both orders", lambda m: format_share(m.tally.consistency)),
        ("reversed verdicts, for the answer presented first : second", _order_bias),
        ("sign test over prompts, p", lambda m: format_p_value(m.tally.sign_p)),
        (
            "e-value against P(win) = 1/2, valid at any stopping time (20 corresponds to p = 0.05)",
            lambda m: significant(m.tally.e_value, 2),
        ),
        ("mean length of the answers, characters", _lengths),
        ("identical answers, tied without a call", lambda m: f"{m.tally.identical:,}"),
        ("calls; cost", lambda m: f"{m.calls:,}; {format_dollars(m.dollars)}"),
    ]
    if any(match.bradley_terry for match in judgement.matches):
        rows.insert(
            4,
            (
                "P(win), Bradley-Terry model of all methods",
                lambda m: format_share(m.bradley_terry) if m.bradley_terry else "n/a",
            ),
        )
    if any(match.second for match in judgement.matches):
        rows.append((f"second judge, {judgement.usage[-1].judge.model}: score; agreement; kappa", _second))
    if any(match.human for match in judgement.matches):
        rows.append(("human labels: number; corrected score; agreement; kappa", _human))
    if any(match.tally.unjudged for match in judgement.matches):
        rows.insert(2, ("answer pairs not judged", lambda m: f"{m.tally.unjudged:,}"))
    return [(name, [cell(match) for match in judgement.matches]) for name, cell in rows]


def _invalid(match: MethodPairResult) -> str:
    found = match.tally
    if not found.invalid or found.bounds is None:
        return "0"
    kinds = ", ".join(f"{n:,} {kind.replace('_', ' ')}" for kind, n in found.failures.items())
    return f"{found.invalid:,} ({kinds}); {format_percent(found.bounds[0])}, {format_percent(found.bounds[1])}"


def _one_order(match: MethodPairResult) -> str:
    return f"{format_percent(match.tally.shown_first.value)}; {format_percent(match.tally.shown_second.value)}"


def _order_bias(match: MethodPairResult) -> str:
    found = match.tally
    return (
        f"{found.favors_first:,} : {found.favors_second:,}, p {format_p_value(found.order_p)}"
        if found.favors_first + found.favors_second
        else "none"
    )


def _lengths(match: MethodPairResult) -> str:
    found = match.tally
    if found.mean_chars is None:
        return "n/a"
    names = (method_label(found.treatment), method_label(found.baseline))
    return ", ".join(f"{name} {chars:,.0f}" for name, chars in zip(names, found.mean_chars, strict=True))


def _agreement(agreement: float | None, kappa: float | None) -> str:
    return f"{format_percent(agreement)}; {'n/a' if kappa is None else f'{kappa:.2f}'}"


def _second(match: MethodPairResult) -> str:
    second = match.second
    return f"{format_share(second.tally.score)}; {_agreement(second.agreement, second.kappa)}" if second else "n/a"


def _human(match: MethodPairResult) -> str:
    human = match.human
    if human is None:
        return "n/a"
    return f"{human.labels:,}; {format_share(human.score)}; {_agreement(human.agreement, human.kappa)}"


def summary_lines(judgement: Judgement) -> list[str]:
    """Lines for the terminal: judge: GRPO 48.6% (40.3 to 57.0) against PPO, 73 answer pairs, 2 invalid, $1.84."""
    if judgement.reason:
        return [f"judge: n/a, {judgement.reason}"]
    lines = [
        f"judge: {method_label(m.tally.treatment)} {format_share(m.tally.score)} against "
        f"{method_label(m.tally.baseline)}, {m.tally.judged:,} answer pairs, {m.tally.invalid:,} invalid, "
        f"{format_dollars(m.dollars)}"
        for m in judgement.matches[:3]
    ]
    more = len(judgement.matches) - len(lines)
    return [*lines, *([f"judge: {more} more comparisons of methods in the report"] if more else [])]


def collect_judge_warnings(judgement: Judgement) -> list[tuple[Level, str, str]]:
    """Warnings about the judge: level, text, and a short form for the terminal."""
    if judgement.reason:
        return [("limits the verdict", f"The answers were not judged: {judgement.reason}.", "answers not judged")]
    found: list[tuple[Level, str, str]] = []
    if judgement.stopped:
        judged = sum(match.tally.judged + match.tally.invalid for match in judgement.matches)
        left = sum(match.tally.unjudged for match in judgement.matches)
        done = f"{judged:,} of {judged + left:,} answer pairs are judged"
        text = f"Judging stopped early ({judgement.stopped}): {done}."
        found.append(("limits the verdict", text, "judging stopped early"))
    if judgement.same_family:
        family = listed(list(judgement.same_family))
        text = (
            f"The judge {judgement.judge.model} belongs to the same model family as {family}, whose answers it judges."
        )
        found.append(("limits the verdict", text, "judge and policy share a model family"))
    found += _tally_warnings([match.tally for match in judgement.matches])
    found += [("note", text, "judge model is retired") for text in judgement.retirement_warnings]
    if judgement.unpaired:
        text = f"{counted(judgement.unpaired, 'answer')} without a counterpart of another method could not be judged."
        found.append(("note", text, "answers without a counterpart"))
    return found


def _tally_warnings(tallies: list[Tally]) -> list[tuple[Level, str, str]]:
    """Each kind of warning once, with all method pairs that it concerns."""
    invalid = [t for t in tallies if t.score.reason == "too_many_invalid"]
    reversed_ = [t for t in tallies if _preference_depends_on_length(t)]
    ordered = [t for t in tallies if t.order_p is not None and t.order_p < ALPHA]
    tied = [t for t in tallies if t.tie_rate > MANY_TIES]
    truncated = sum(t.truncated for t in tallies)
    kinds: list[tuple[bool, Level, str, str]] = [
        (
            bool(invalid),
            "limits the verdict",
            "The judge gave no verdict on more than 5% of the answer pairs "
            f"({_each(invalid, lambda t: format_percent(t.invalid_rate))}): no score is reported.",
            "judge: too many invalid verdicts",
        ),
        (
            bool(reversed_),
            "limits the verdict",
            "The judge's preference disappears or reverses at equal length "
            f"({_each(reversed_, lambda t: format_share(t.length_controlled))}): answer length may explain it.",
            "judge: length may explain it",
        ),
        (
            bool(ordered),
            "note",
            "Position bias: the judge's verdict depends on which answer is presented first "
            f"({_each(ordered, _split)}); verdicts that change with the order count as ties.",
            "judge: position bias",
        ),
        (
            bool(tied),
            "note",
            "More than 30% of the judged answer pairs are ties "
            f"({_each(tied, lambda t: format_percent(t.tie_rate))}): the judge rarely distinguishes the answers.",
            "judge: many ties",
        ),
        (
            bool(truncated),
            "note",
            f"{counted(truncated, 'answer pair')} had a text longer than judge.max_chars; the judge saw it truncated.",
            "judge: long texts truncated",
        ),
    ]
    return [(level, text, brief) for applies, level, text, brief in kinds if applies]


def _each(tallies: list[Tally], show: Callable[[Tally], str]) -> str:
    return "; ".join(f"{method_label(t.treatment)} against {method_label(t.baseline)} {show(t)}" for t in tallies)


def _split(found: Tally) -> str:
    position = "first" if found.favors_first > found.favors_second else "second"
    counts = f"{found.favors_first:,} : {found.favors_second:,}"
    return f"{counts} for the answer presented {position}, p {format_p_value(found.order_p)}"


def _preference_depends_on_length(found: Tally) -> bool:
    """Whether a significant preference disappears or reverses at equal length."""
    score, equal = found.score, found.length_controlled
    if score.low is None or score.high is None or equal.low is None or equal.high is None:
        return False
    return (score.low > 0.5 and equal.low <= 0.5) or (score.high < 0.5 and equal.high >= 0.5)
