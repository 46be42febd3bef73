"""The summary that a study prints last: the verdict in 80 columns."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from .compare import Comparison
from .findings import Cost, Findings
from .metrics import Metric, plain, significant
from .sentences import seeds_advice
from .theme import PALETTE_SIZE, TERMINAL_MARKS
from .verdict import SYMBOLS, State

COLUMNS = 80
STATE_COLORS: dict[State, str] = {"better": "32", "equivalent": "32", "worse": "33", "incomplete": "31",
                                  "not_comparable": "31"}
METHOD_COLORS = ("34", "33", "36", "35", "93", "94", "90", "95")
PLAIN_SYMBOLS: dict[State, str] = {"better": "+", "worse": "-", "equivalent": "=", "inconclusive": "~",
                                   "incomplete": "x", "not_comparable": "x", "single": "1"}


def summary_lines(findings: Findings, page: Path, color: bool) -> list[str]:
    """The lines to print; without color they are plain ASCII."""
    lines = [_first(findings), *_verdict(findings), _rule()]
    lines += _metric_table(findings) if len(findings.arms) == 2 else _level_table(findings)
    lines += [_rule(), *_cautions(findings), f" report  {page}", f" exit {findings.verdict.exit_code} ({_exit(findings)})"]
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
    names = " vs ".join(arm.label for arm in findings.arms)
    done = sum(run.status == "finished" for run in study.runs if run.counted)
    whole = sum(run.counted for run in study.runs)
    odd = [f"{n} {word}" for word, n in (("failed", fairness.count("failed")), ("warn", fairness.count("warning"))) if n]
    checks = ", ".join([f"{fairness.count('ok')}/{len(fairness.checks)}", *odd])
    parts = (names if len(names) < 34 else f"{len(findings.arms)} methods", findings.task,
             f"seeds {' '.join(map(str, study.seeds))}", f"{done}/{whole} runs", f"fairness {checks}")
    return _fit(" " + " | ".join(parts))


def _fit(line: str) -> str:
    return line if len(line) <= COLUMNS else line[: COLUMNS - 3] + "..."


def _verdict(findings: Findings) -> list[str]:
    verdict = findings.verdict
    state = verdict.state.replace("_", " ").upper()
    text = verdict.rest if verdict.lead.rstrip(":").upper() in (state, "NO VERDICT") else verdict.sentence
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


def _metric_table(findings: Findings) -> list[str]:
    base, other = findings.baseline, next(arm for arm in findings.arms if arm is not findings.baseline)
    heads = [f"{arm.label[:12]} {_mark(arm.place)}" for arm in (base, other)]
    minus, over = f"{other.label[:9]} - {base.label[:9]}", f"{other.label[:9]} / {base.label[:9]}"
    rows = [_row("", *heads, minus, "95% CI", "g")]
    rows += [_difference(findings, pair) for pair in (*findings.pairs, *findings.exploratory[:6])]
    costs = [_ratio(cost, base.name, other.name) for cost in findings.costs if not cost.reason]
    return [*rows, *([_row("", *heads, over, "95% CI", ""), *costs] if costs else [])]


def _row(name: str, first: str, second: str, change: str, interval: str, g: str) -> str:
    return _fit(f" {name[:22]:<22}{first:>11}{second:>11}  {change:<13}{interval:<15}{g}".rstrip())


def _name(metric: Metric) -> str:
    unit = metric.level_suffix or (f", {metric.unit}" if metric.unit else "")
    short = {"answers cut at the limit": "cut answers", "KL from the SFT model": "KL",
             "accuracy, lenient reading": "lenient accuracy"}.get(metric.label, metric.label)
    if "pass@" in short:
        short = short[short.index("pass@") :].rstrip(")")
    return f"{short}{' ' if metric.level_suffix else ''}{unit}{' (less)' if metric.better == 'less' else ''}"


def _difference(findings: Findings, pair: Comparison) -> str:
    metric, star = pair.metric, " *" if pair.metric.name == findings.declared.metric else ""
    means = [sum(row) / len(row) for row in pair.scores if row]
    if len(means) < 2:
        return _row(_name(metric) + star, "n/a", "n/a", "n/a", "", "")
    low, high, g = pair.difference.low, pair.difference.high, pair.hedges_g.value
    interval = "no interval" if low is None else f"{metric.signed(low)} to {metric.signed(high)}"
    effect = "" if g is None else f"{g:+.2f}"
    return _row(_name(metric) + star, metric.number(means[1]), metric.number(means[0]),
                metric.signed(pair.difference.value), interval, effect)


def _ratio(cost: Cost, base: str, other: str) -> str:
    means = [significant(sum(cost.values[arm]) / len(cost.values[arm]) / cost.divisor) for arm in (base, other)]
    ratio = cost.ratios[other]
    shown = "n/a" if ratio.value is None else f"{ratio.value:.2f}x"
    interval = "" if ratio.low is None or ratio.high is None else f"{ratio.low:.2f} to {ratio.high:.2f}"
    label = {"tokens": "tokens" + cost.label.removeprefix("Generated tokens").replace(" (", ", ").rstrip(")"),
             "seconds": "time, s", "peak_memory_bytes": "peak memory, GiB"}.get(cost.key, "price, $")
    return _row(label, means[0], means[1], shown, interval, "")


def _level_table(findings: Findings) -> list[str]:
    """One line for each method, for one method or more than two."""
    metric, against = findings.metric, {pair.treatment: pair for pair in findings.against_baseline()}
    title = f"{_name(metric)} *"
    rows = [_level_row("", title, "95% CI of mean", f"minus {findings.baseline.label}", "time, s")]
    time = next(cost for cost in findings.costs if cost.key == "seconds")
    for arm in findings.arms:
        interval = "n/a" if arm.level.low is None else (
            f"{metric.number(arm.level.low)} to {metric.number(arm.level.high)}")
        pair, spent = against.get(arm.name), time.values.get(arm.name)
        change = "baseline" if pair is None else _change(metric, pair)
        rows.append(_level_row(f"{arm.label} {_mark(arm.place)}", metric.number(arm.level.value), interval, change,
                               significant(sum(spent) / len(spent)) if spent else "n/a"))
    return rows


def _change(metric: Metric, pair: Comparison) -> str:
    low, high = pair.difference.low, pair.difference.high
    interval = "" if low is None else f" ({metric.signed(low)} to {metric.signed(high)})"
    return f"{metric.signed(pair.difference.value)}{interval}"


def _level_row(name: str, level: str, interval: str, change: str, seconds: str) -> str:
    return _fit(f" {name[:18]:<18}{level[:21]:>21}  {interval:<15} {change:<23}{seconds}".rstrip())


def _cautions(findings: Findings) -> list[str]:
    """The most serious warnings, a line each; how many more there are."""
    shown: Sequence[str] = [caution.text for caution in findings.cautions[:3]]
    lines = [_fit(f" ! {text}") for text in shown]
    more = len(findings.cautions) - len(shown)
    return lines + ([f"   {more} more in the report"] if more > 0 else [])


def _exit(findings: Findings) -> str:
    state = findings.verdict.state
    if state == "incomplete":
        return "a planned run has no result; type the same command again to finish it"
    if state == "not_comparable":
        return "a fairness check failed; the methods cannot be compared"
    return "study complete" + ("; an inconclusive verdict is no error" if state == "inconclusive" else "")


def _colored(findings: Findings, line: str) -> str:
    state = findings.verdict.state
    word = state.replace("_", " ").upper()
    line = line.replace(word, f"\x1b[1;{STATE_COLORS.get(state, '36')}m{word}\x1b[0m", 1) if word in line else line
    for arm in findings.arms:
        name = f"{arm.label[:12]} {_mark(arm.place)}"
        line = line.replace(name, f"\x1b[{METHOD_COLORS[arm.place % PALETTE_SIZE]}m{name}\x1b[0m")
    return line
