"""The terminal summary of a study: verdict, differences, costs and warnings in 80 columns."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from ..comparison.compare import Comparison
from ..comparison.costs import Cost
from ..comparison.verdict import SYMBOLS, State
from ..findings import Findings
from ..plots.theme import PALETTE_SIZE, TERMINAL_MARKS
from ..study.methods import Method
from ..study.metrics import Metric, plain, significant
from .section import Section
from .sections import SECTIONS
from .verdict_text import seeds_advice

COLUMNS = 80
BRIEF = 6
"""Warnings printed in their short form."""
STATE_COLORS: dict[State, str] = {
    "better": "32",
    "equivalent": "32",
    "worse": "33",
    "incomplete": "31",
    "not_comparable": "31",
}
METHOD_COLORS = ("34", "33", "36", "35", "93", "94", "90", "95")
WORDS: dict[State, str] = {"not_comparable": "NOT COMPARABLE", "single": "ONE METHOD"}


def summary_lines(findings: Findings, page: Path, color: bool, sections: Sequence[Section] = SECTIONS) -> list[str]:
    """The lines to print, in plain ASCII unless in color."""
    lines = [_first(findings), *_verdict(findings), _rule()]
    lines += _metric_table(findings) if len(findings.methods) == 2 else _level_table(findings)
    lines += [
        _rule(),
        *_section_lines(findings, sections),
        *_warnings(findings),
        f" report  {page}",
        f" exit {findings.verdict.exit_code} ({_exit(findings)})",
    ]
    if not color:
        return [plain(line) for line in lines]
    return [_colored(findings, line) for line in lines]


def print_summary(findings: Findings, page: Path, stream: TextIO) -> None:
    """Print the summary; in color on a terminal, plain ASCII elsewhere or where NO_COLOR is set."""
    color = stream.isatty() and "NO_COLOR" not in os.environ
    stream.write("\n".join(summary_lines(findings, page, color)) + "\n")


def _rule() -> str:
    return " " + "-" * (COLUMNS - 2)


def _first(findings: Findings) -> str:
    study, fairness = findings.study, findings.fairness
    names = " vs ".join(method.label for method in findings.methods)
    done = sum(run.status == "finished" for run in study.runs if run.counted)
    whole = sum(run.counted for run in study.runs)
    odd = [
        f"{n} {word}" for word, n in (("failed", fairness.count("failed")), ("warn", fairness.count("warning"))) if n
    ]
    checks = ", ".join([f"{fairness.count('ok')}/{len(fairness.checks)}", *odd])
    ends = (findings.task, f"{done}/{whole} runs", f"fairness {checks}")
    seeds = f"seeds {' '.join(map(str, study.seeds))}"
    for who, which in (
        (names, seeds),
        (names, f"{len(study.seeds)} seeds"),
        (f"{len(findings.methods)} methods", f"{len(study.seeds)} seeds"),
    ):
        line = " " + " | ".join((who, ends[0], which, *ends[1:]))
        if len(line) <= COLUMNS:
            break
    return _fit(line)


def _word(state: State) -> str:
    return WORDS.get(state, state.upper())


def _fit(line: str) -> str:
    return line if len(line) <= COLUMNS else line[: COLUMNS - 3] + "..."


def _verdict(findings: Findings) -> list[str]:
    verdict = findings.verdict
    state = _word(verdict.state)
    said = verdict.lead.rstrip(":").upper() in (state, "NO VERDICT")
    text = verdict.numbers if said else f"{verdict.lead} {verdict.numbers}"
    lines = _wrapped(text, f" {SYMBOLS[verdict.state]} {state}  ")
    pair = max(findings.pairs, key=lambda pair: pair.detectable or 0.0, default=None)
    if pair and pair.detectable_d and pair.detectable and verdict.state not in ("incomplete", "not_comparable"):
        limit = f"smallest detectable: d \N{GREATER-THAN OR EQUAL TO} {pair.detectable_d:.2f}, about "
        lines += _wrapped(f"{limit}{pair.metric.size(pair.detectable)}.{seeds_advice(pair)}", "   ")
    return lines


def _wrapped(text: str, first: str) -> list[str]:
    """Text in lines of 80 columns, the following ones indented by three."""
    lines, line = [], first
    for word in text.split():
        if len(line) + len(word) > COLUMNS and line.strip():
            lines.append(line.rstrip())
            line = "   "
        line += f"{word} "
    return [*lines, line.rstrip()]


def _mark(place: int) -> str:
    return TERMINAL_MARKS[place % PALETTE_SIZE]


def _heading(method: Method) -> str:
    """A method and its mark, shortened to fit a column."""
    return f"{method.label[:6].rstrip()} {_mark(method.place)}"


def _metric_table(findings: Findings) -> list[str]:
    base, other = findings.baseline, next(method for method in findings.methods if method is not findings.baseline)
    first, second = _heading(base), _heading(other)
    minus, over = "difference", "ratio"
    if len(other.label) + len(base.label) <= 7:
        minus, over = f"{other.label} - {base.label}", f"{other.label} / {base.label}"
    rows = [_row("(* decides)", first, second, minus, "95% CI", "g")]
    rows += [_difference(findings, pair) for pair in (*findings.pairs, *findings.exploratory[:6])]
    costs = [_ratio(cost, base.name, other.name) for cost in findings.costs if not cost.reason]
    return [*rows, *([_row("", first, second, over, "95% CI", ""), *costs] if costs else [])]


def _row(name: str, first: str, second: str, change: str, interval: str, g: str) -> str:
    return _fit(f" {name[:20]:<20}{first:>12}{second:>12} {change:<10} {interval:<16} {g}".rstrip())


def _name(metric: Metric) -> str:
    short = metric.short().replace("answer length, ", "answer ").replace("KL per token, nats", "KL/token")
    return f"{short}{' (less)' if metric.better == 'less' else ''}"


def _difference(findings: Findings, pair: Comparison) -> str:
    metric, star = pair.metric, " *" if pair.metric.name == findings.declared.metric else ""
    means = [sum(row) / len(row) for row in pair.scores if row]
    if len(means) < 2:
        return _row(_name(metric) + star, "n/a", "n/a", "n/a", "", "")
    if findings.state_of(pair) == "incomplete" and star:
        return _row(_name(metric) + star, metric.number(means[1]), metric.number(means[0]), "n/a", "no result", "")
    low, high, g = pair.difference.low, pair.difference.high, pair.hedges_g.value
    interval = "no interval" if low is None else f"{metric.signed(low)} to {metric.signed(high)}"
    effect = "" if g is None else f"{g:+.2f}"
    return _row(
        _name(metric) + star,
        metric.number(means[1]),
        metric.number(means[0]),
        metric.signed(pair.difference.value),
        interval,
        effect,
    )


def _ratio(cost: Cost, base: str, other: str) -> str:
    means = [
        significant(sum(cost.values[method]) / len(cost.values[method]) / cost.divisor) for method in (base, other)
    ]
    ratio = cost.ratios[other]
    shown = "n/a" if ratio.value is None else f"{ratio.value:.2f}x"
    interval = "" if ratio.low is None or ratio.high is None else f"{ratio.low:.2f} to {ratio.high:.2f}"
    label = {
        "tokens": cost.label.removeprefix("Generated ").replace(" (tokens)", "").replace(" (", ", ").rstrip(")"),
        "seconds": "time, s",
        "peak_memory_bytes": "peak memory, GiB",
    }.get(cost.key, "price, $")
    return _row(label, means[0], means[1], shown, interval, "")


def _level_table(findings: Findings) -> list[str]:
    """One line for each method, for one method or more than two."""
    metric, against = findings.metric, {pair.treatment: pair for pair in findings.against_baseline()}
    title = f"{_name(metric)} *"
    change = f"minus {findings.baseline.label}" if against else ""
    rows = [_level_row("", title, "95% CI of mean", change, "time, s")]
    time = next(cost for cost in findings.costs if cost.key == "seconds")
    for method in findings.methods:
        interval = (
            "n/a"
            if method.level.low is None
            else (f"{metric.number(method.level.low)} to {metric.number(method.level.high)}")
        )
        pair, spent = against.get(method.name), time.values.get(method.name)
        change = ("baseline" if against else "") if pair is None else _change(findings, pair)
        rows.append(
            _level_row(
                f"{method.label[:11]} {_mark(method.place)}",
                metric.number(method.level.value),
                interval,
                change,
                significant(sum(spent) / len(spent)) if spent else "n/a",
            )
        )
    return rows


def _change(findings: Findings, pair: Comparison) -> str:
    if findings.state_of(pair) == "incomplete":
        return "n/a: no result"
    metric = pair.metric
    low, high = pair.difference.low, pair.difference.high
    interval = "" if low is None else f" ({metric.signed(low)} to {metric.signed(high)})"
    return f"{metric.signed(pair.difference.value)}{interval}"


def _level_row(name: str, level: str, interval: str, change: str, seconds: str) -> str:
    return _fit(f" {name[:15]:<15}{level[:14]:>14}  {interval:<15} {change:<25}{seconds}".rstrip())


def _section_lines(findings: Findings, sections: Sequence[Section]) -> list[str]:
    """What the sections add to the summary, such as the results of a judge."""
    lines = [line for section in sections if section.applies(findings) for line in section.terminal(findings)]
    return [part for line in lines for part in _wrapped(line, " ")]


def _warnings(findings: Findings) -> list[str]:
    """Warnings that stop the verdict in full, then the others in brief, two on a line."""
    stops = [warning.text for warning in findings.warnings if warning.level == "stops the verdict"]
    rest = [warning.brief or warning.text for warning in findings.warnings if warning.level != "stops the verdict"]
    lines = [line for text in stops[:4] for line in _wrapped(text, " ! ")]
    lines += _side_by_side([f" ! {text}"[:COLUMNS] for text in rest[:BRIEF]])
    more = len(findings.warnings) - len(stops[:4]) - len(rest[:BRIEF])
    return [*lines, *([f"   {more} more in the report"] if more else [])]


def _side_by_side(parts: list[str]) -> list[str]:
    """Two short parts on a line; a long one has a line of its own."""
    lines: list[str] = []
    for part in parts:
        half = COLUMNS // 2
        if lines and len(lines[-1]) < half and len(part) <= half:
            lines[-1] = f"{lines[-1]:<{half}}{part}"
        else:
            lines.append(part)
    return lines


def _exit(findings: Findings) -> str:
    state = findings.verdict.state
    if state == "incomplete":
        return "a planned run has no result; repeat the command of the study to finish it"
    if state == "not_comparable":
        return "a fairness check failed; the methods cannot be compared"
    return "study complete" + ("; an inconclusive verdict is not an error" if state == "inconclusive" else "")


def _colored(findings: Findings, line: str) -> str:
    state = findings.verdict.state
    word = _word(state)
    line = line.replace(word, f"\x1b[1;{STATE_COLORS.get(state, '36')}m{word}\x1b[0m", 1) if word in line else line
    for method in findings.methods:
        name = _heading(method)
        line = line.replace(name, f"\x1b[{METHOD_COLORS[method.place % PALETTE_SIZE]}m{name}\x1b[0m")
    return line
