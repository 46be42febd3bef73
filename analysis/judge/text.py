"""What a report says of the judge: the sentence, the answers, the table of every number, the warnings."""

from collections.abc import Callable
from typing import Literal

from ..statistics import Estimate
from ..study.metrics import counted, listed, method_label, significant
from .judgement import Judgement, Match
from .tally import Tally
from .trial import LOSS, TIE, WIN

Level = Literal["limits the verdict", "note"]
Row = tuple[str, list[str]]
MANY_TIES = 0.30
SURE = 0.05
REASONS = {
    "nothing_judged": "nothing was judged",
    "too_many_invalid": "too many pairs without a verdict",
    "few_prompts": "fewer than 30 prompts",
    "few_labels": "fewer than 10 labelled prompts",
    "all_the_same": "all the same",
    "no_length_difference": "no answer differs in length",
    "separated": "a method won everything",
}


def percent(value: float | None) -> str:
    """48.6%."""
    return "n/a" if value is None else f"{100 * value:.1f}%"


def share(estimate: Estimate) -> str:
    """48.6% (40.3 to 57.0), or why there is none."""
    if estimate.value is None:
        return f"n/a: {REASONS.get(estimate.reason or '', estimate.reason or '')}"
    if estimate.low is None or estimate.high is None:
        return f"{percent(estimate.value)} (no interval)"
    return f"{percent(estimate.value)} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def dollars(amount: float) -> str:
    """$1.84; under a cent $0.0031; nothing $0."""
    return "$0" if amount == 0 else f"${amount:.2f}" if amount >= 0.01 else f"${significant(amount, 2)}"


def p_value(p: float | None) -> str:
    """0.031, and <0.001 below."""
    return "n/a" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def lede(judgement: Judgement) -> str:
    """Under 'What does the judge say?': who judged, and how much."""
    if judgement.reason:
        return f"n/a: {judgement.reason}."
    of = f" of {judgement.available:,}" if judgement.available > judgement.prompts else ""
    return (
        f"{judgement.judge.model} compared the answers of each two methods to the same prompt at the same seed, in "
        f"both orders, on {judgement.prompts:,}{of} held-out prompts. A second opinion; it does not decide the verdict."
    )


def sentence(match: Match) -> str:
    """GRPO wins 18, ties 35 and loses 20 of 73 pairs with PPO: score 48.6% (40.3 to 57.0); the judge cannot tell."""
    found = match.tally
    treatment, baseline = method_label(found.treatment), method_label(found.baseline)
    if not found.judged:
        return f"{treatment} and {baseline}: nothing was judged."
    counts = f"{treatment} wins {found.win:,}, ties {found.tie:,} and loses {found.loss:,} of {found.judged:,} pairs"
    invalid = f"; {counted(found.invalid, 'pair')} without a verdict" if found.invalid else ""
    return f"{counts} with {baseline}{invalid}. Score {share(found.score)}: {preference(found)}."


def format_sample(judgement: Judgement | None, seed: int | None, prompt_id: str) -> list[str]:
    """What the judge said of the answers to one prompt at one seed, if it was asked."""
    if judgement is None or seed is None:
        return []
    found = []
    for match in judgement.matches:
        treatment, baseline = match.tally.treatment, match.tally.baseline
        result = judgement.said.get((treatment, baseline, seed, prompt_id))
        if result is not None:
            found.append(_said(method_label(treatment), method_label(baseline), result))
    return found


def _said(treatment: str, baseline: str, result: int) -> str:
    if result in (WIN, LOSS):
        winner, loser = (treatment, baseline) if result == WIN else (baseline, treatment)
        return f"{winner} is better than {loser}, in both orders"
    return f"{treatment} and {baseline} {'tie' if result == TIE else 'got no verdict'}"


def preference(found: Tally) -> str:
    """Which method the judge prefers, if its interval says so."""
    low, high = found.score.low, found.score.high
    if low is None or high is None:
        return "no preference can be stated"
    if low > 0.5 or high < 0.5:
        return f"the judge prefers {method_label(found.treatment if low > 0.5 else found.baseline)}"
    return "the judge cannot tell them apart on so many prompts"


def table(judgement: Judgement) -> list[Row]:
    """Every number: one column for each two methods."""
    rows: list[tuple[str, Callable[[Match], str]]] = [
        ("wins / ties / losses", lambda m: f"{m.tally.win:,} / {m.tally.tie:,} / {m.tally.loss:,}"),
        ("pairs without a verdict; score if all were lost, or won", _invalid),
        ("score: wins and half of the ties", lambda m: share(m.tally.score)),
        ("score at equal length", lambda m: share(m.tally.length_controlled)),
        ("score, mean of both orders", lambda m: share(m.tally.mean_of_orders)),
        ("score from one order only: shown first; second", _one_order),
        ("same verdict in both orders", lambda m: share(m.tally.consistency)),
        ("of reversed verdicts, for the answer shown first : second", _order_bias),
        ("sign test over prompts, p", lambda m: p_value(m.tally.sign_p)),
        ("evidence against equal chances, valid at any stop (20 is enough)", lambda m: significant(m.tally.e_value, 2)),
        ("mean length of the answers, characters", _lengths),
        ("identical answers, tied without a call", lambda m: f"{m.tally.identical:,}"),
        ("calls; cost", lambda m: f"{m.calls:,}; {dollars(m.dollars)}"),
    ]
    if any(match.ranked for match in judgement.matches):
        rows.insert(4, ("chance to win, all methods ranked together", lambda m: share(m.ranked) if m.ranked else "n/a"))
    if any(match.second for match in judgement.matches):
        rows.append((f"second judge, {judgement.bills[-1].judge.model}: score; agreement; kappa", _second))
    if any(match.people for match in judgement.matches):
        rows.append(("people: labels; score corrected by them; agreement; kappa", _people))
    if any(match.tally.unjudged for match in judgement.matches):
        rows.insert(2, ("pairs not judged yet", lambda m: f"{m.tally.unjudged:,}"))
    return [(name, [cell(match) for match in judgement.matches]) for name, cell in rows]


def _invalid(match: Match) -> str:
    found = match.tally
    if not found.invalid or found.bounds is None:
        return "0"
    why = ", ".join(f"{n:,} {word.replace('_', ' ')}" for word, n in found.troubles.items())
    return f"{found.invalid:,} ({why}); {percent(found.bounds[0])}, {percent(found.bounds[1])}"


def _one_order(match: Match) -> str:
    return f"{percent(match.tally.shown_first.value)}; {percent(match.tally.shown_second.value)}"


def _order_bias(match: Match) -> str:
    found = match.tally
    return f"{found.first:,} : {found.second:,}, p {p_value(found.order_p)}" if found.first + found.second else "none"


def _lengths(match: Match) -> str:
    found = match.tally
    if found.mean_chars is None:
        return "n/a"
    names = (method_label(found.treatment), method_label(found.baseline))
    return ", ".join(f"{name} {chars:,.0f}" for name, chars in zip(names, found.mean_chars, strict=True))


def _agreement(agreement: float | None, kappa: float | None) -> str:
    return f"{percent(agreement)}; {'n/a' if kappa is None else f'{kappa:.2f}'}"


def _second(match: Match) -> str:
    second = match.second
    return f"{share(second.tally.score)}; {_agreement(second.agreement, second.kappa)}" if second else "n/a"


def _people(match: Match) -> str:
    people = match.people
    if people is None:
        return "n/a"
    return f"{people.labels:,}; {share(people.score)}; {_agreement(people.agreement, people.kappa)}"


def summary_lines(judgement: Judgement) -> list[str]:
    """A line for the terminal: judge: GRPO 48.6% (40.3 to 57.0) against PPO, 73 pairs, 2 invalid, $1.84."""
    if judgement.reason:
        return [f"judge: n/a, {judgement.reason}"]
    lines = [
        f"judge: {method_label(m.tally.treatment)} {share(m.tally.score)} against {method_label(m.tally.baseline)}, "
        f"{m.tally.judged:,} pairs, {m.tally.invalid:,} invalid, {dollars(m.dollars)}"
        for m in judgement.matches[:3]
    ]
    more = len(judgement.matches) - len(lines)
    return [*lines, *([f"judge: {more} more pairs of methods in the report"] if more else [])]


def warnings(judgement: Judgement) -> list[tuple[Level, str, str]]:
    """What limits the judge's word: how serious, the warning, and a few words for a narrow screen."""
    if judgement.reason:
        return [("limits the verdict", f"There is no judgement: {judgement.reason}.", "nothing was judged")]
    found: list[tuple[Level, str, str]] = []
    if judgement.stopped:
        done = sum(match.tally.judged + match.tally.invalid for match in judgement.matches)
        left = sum(match.tally.unjudged for match in judgement.matches)
        text = f"Judging stopped before its end ({judgement.stopped}): {done:,} of {done + left:,} pairs are judged."
        found.append(("limits the verdict", text, "judging stopped before its end"))
    if judgement.relatives:
        family = listed(list(judgement.relatives))
        text = f"The judge {judgement.judge.model} is of the family of {family}, whose answers it judges."
        found.append(("limits the verdict", text, "judge and policy are of one family"))
    found += _of_matches([match.tally for match in judgement.matches])
    found += [("note", text, "the judge's model leaves") for text in judgement.leaving]
    if judgement.unpaired:
        text = f"{counted(judgement.unpaired, 'answer')} had no counterpart of another method and was not judged."
        found.append(("note", text, "answers without counterpart"))
    return found


def _of_matches(found: list[Tally]) -> list[tuple[Level, str, str]]:
    """Each kind of warning once, with every pair of methods that it is about."""
    invalid = [t for t in found if t.score.reason == "too_many_invalid"]
    turned = [t for t in found if _length_turns(t)]
    ordered = [t for t in found if t.order_p is not None and t.order_p < SURE]
    tied = [t for t in found if t.tie_rate > MANY_TIES]
    cut = sum(t.cut for t in found)
    kinds: list[tuple[bool, Level, str, str]] = [
        (
            bool(invalid),
            "limits the verdict",
            "The judge gave no verdict on more than 5% of the pairs "
            f"({_each(invalid, lambda t: percent(t.invalid_rate))}): no score is given.",
            "judge: too many invalid",
        ),
        (
            bool(turned),
            "limits the verdict",
            "At equal length the judge's preference is gone or turned "
            f"({_each(turned, lambda t: share(t.length_controlled))}): length may explain it.",
            "judge: length may explain it",
        ),
        (
            bool(ordered),
            "note",
            "The judge's verdict depends on which answer it is shown first "
            f"({_each(ordered, _split)}); verdicts that change with the order count as ties.",
            "judge: order matters",
        ),
        (
            bool(tied),
            "note",
            f"More than 30% of the judged pairs are ties ({_each(tied, lambda t: percent(t.tie_rate))}): the judge can "
            "hardly tell the answers apart.",
            "judge: many ties",
        ),
        (
            bool(cut),
            "note",
            f"{counted(cut, 'pair')} had a text longer than judge.max_chars, of which the judge saw a part.",
            "judge saw parts of long texts",
        ),
    ]
    return [(level, text, brief_) for there, level, text, brief_ in kinds if there]


def _each(found: list[Tally], show: Callable[[Tally], str]) -> str:
    return "; ".join(f"{method_label(t.treatment)} against {method_label(t.baseline)} {show(t)}" for t in found)


def _split(found: Tally) -> str:
    shown = "first" if found.first > found.second else "second"
    return f"{found.first:,} : {found.second:,} for the one shown {shown}, p {p_value(found.order_p)}"


def _length_turns(found: Tally) -> bool:
    """Whether a clear preference is gone, or turned, at equal length."""
    score, equal = found.score, found.length_controlled
    if score.low is None or score.high is None or equal.low is None or equal.high is None:
        return False
    return (score.low > 0.5 and equal.low <= 0.5) or (score.high < 0.5 and equal.high >= 0.5)
