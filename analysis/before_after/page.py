"""Formats a before-after comparison as JSON, as Markdown and for the terminal."""

import html
import json
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from ..comparison.compare import ALPHA
from ..report.render import TEMPLATES
from ..report.terminal import COLUMNS
from ..statistics import Estimate
from ..study.metrics import counted, plain, signed
from ..study.samples import shortened
from .changes import Change, Problem, select_examples

REASONS = {
    "n<2": "one problem has no variance",
    "zero_pooled_variance": "the score is the same on every problem",
    "constant_difference": "every problem changed by the same amount",
    "start_mean_is_zero": "the mean before is zero",
    "start_mean_below_zero": "the mean before is below zero",
    "not_right_or_wrong_once": "it requires one answer to each problem, correct or incorrect",
    "no_disagreement": "no problem changed",
}
PROMPT = 70
"""Characters of a prompt in the table of problems."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """The content of one comparison."""

    names: tuple[str, str]
    files: tuple[str, str]
    settings: dict[str, Any] | None
    """Sampling settings of the answers; None for the answers of a run."""
    problems: Sequence[Problem]
    changes: Sequence[Change]

    @property
    def samples(self) -> int:
        """Answers to each prompt."""
        return len(self.problems[0].answers[0])


# --- JSON -------------------------------------------------------------------------------------------------------------


def as_json(page: Page) -> str:
    """The comparison as JSON; a number that does not exist is null, with a reason beside it."""
    result = {
        "before": {"name": page.names[0], "file": page.files[0]},
        "after": {"name": page.names[1], "file": page.files[1]},
        "settings": page.settings,
        "total_problems": len(page.problems),
        "samples": page.samples,
        "scores": {change.metric.name: _as_data(change) for change in page.changes},
        "per_problem": [_row(problem) for problem in page.problems],
    }
    return json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _as_data(change: Change) -> dict[str, Any]:
    test, discordant = change.test, change.mcnemar
    mcnemar: dict[str, Any] = {"only_before": None, "only_after": None, "p": None, "reason": "not_right_or_wrong_once"}
    if discordant is not None:
        mcnemar = {
            "only_before": change.worsened,
            "only_after": change.improved,
            "p": discordant.p,
            "reason": discordant.reason,
        }
    return {
        "before_mean": change.means[0],
        "after_mean": change.means[1],
        "improvement": {"estimate": test.difference.value, **_interval(test.difference)},
        "paired_t": {"t": test.t, "df": test.df, "p": test.p},
        "improvement_percentage": {"estimate": change.percentage.value, "reason": change.percentage.reason},
        "problems_improved": {"count": change.improved, "share": _share(change, change.improved)},
        "problems_worsened": {"count": change.worsened, "share": _share(change, change.worsened)},
        "problems_equal": change.equal,
        "mcnemar": mcnemar,
    }


def _share(change: Change, count: int) -> dict[str, Any]:
    share = change.share(count)
    return {"estimate": share.value, **_interval(share)}


def _interval(estimate: Estimate) -> dict[str, Any]:
    return {"ci95": None if estimate.low is None else [estimate.low, estimate.high], "reason": estimate.reason}


def _row(problem: Problem) -> dict[str, Any]:
    scores = {
        name: {"before": before, "after": after, "change": problem.change(name)}
        for name, (before, after) in problem.scores.items()
    }
    return {"prompt_id": problem.prompt_id, "prompt": problem.prompt, "reference": problem.reference, **scores}


# --- text -------------------------------------------------------------------------------------------------------------


def as_markdown(page: Page) -> str:
    """The comparison as Markdown, with answers side by side."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        keep_trailing_newline=True,
    )
    words = {
        "page": page,
        "picked": select_examples(page.problems),
        "headline": headline(page),
        "improvement": improvement,
        "percentage": percentage,
        "share": share,
        "mcnemar": mcnemar,
        "cell": cell,
        "fenced": fenced,
        "counted": counted,
    }
    return environment.get_template("change.md").render(words)


def terminal_text(page: Page) -> str:
    """A summary of the comparison in plain ASCII."""
    before, after = page.names
    lines = [
        headline(page),
        f"before: {before}",
        f"after: {after}",
        f"{counted(len(page.problems), 'problem')}, {counted(page.samples, 'answer')} to each",
    ]
    for change in page.changes:
        metric = change.metric
        lines += [
            f"{metric.label}: {metric.number(change.means[0])} to {metric.number(change.means[1])}",
            f"  {improvement(change)}; {percentage(change)}",
            f"  {change.improved} improved, {change.worsened} worsened, {change.equal} equal",
        ]
    return plain("\n".join(map(_wrapped, lines)))


def _wrapped(line: str) -> str:
    indent = " " * (1 + len(line) - len(line.lstrip()))
    return textwrap.fill(line.lstrip(), COLUMNS, initial_indent=indent, subsequent_indent=f"{indent}  ")


def headline(page: Page) -> str:
    """One sentence; a change must be significant in the interval and, if it exists, in the exact test."""
    change = page.changes[0]
    low, high, exact = change.test.difference.low, change.test.difference.high, change.mcnemar
    clear = low is not None and high is not None and not low <= 0 <= high
    if clear and (exact is None or (exact.p or 1.0) < ALPHA):
        lead = f"{'Better' if change.means[1] > change.means[0] else 'Worse'} in {change.metric.label}"
    else:
        lead = f"No clear change in {change.metric.label}"
    return f"{lead}: {improvement(change)}{'' if exact is None else f'; {mcnemar(change)}'}."


def improvement(change: Change) -> str:
    """+12.5 points (95% CI +3.0 to +22.0), or the reason why there is no interval."""
    metric, found = change.metric, change.test.difference
    value = metric.difference(found.value)
    if found.low is None or found.high is None:
        return f"{value} (no interval: {REASONS[found.reason or '']})"
    p = change.test.p
    return f"{value} (95% CI {metric.signed(found.low)} to {metric.signed(found.high)}, paired by problem, p {_p(p)})"


def percentage(change: Change) -> str:
    """+31.2% of the mean before, or why there is none."""
    found = change.percentage
    if found.value is None:
        return f"no percentage: {REASONS[found.reason or '']}"
    return f"{signed(found.value, 1)}% of the mean before"


def share(change: Change, count: int) -> str:
    """5 of 20 (11% to 47%)."""
    found = change.share(count)
    return f"{count} of {change.problems} ({found.low or 0:.0%} to {found.high or 0:.0%})"


def mcnemar(change: Change) -> str:
    """McNemar p 0.125, or why there is none."""
    test = change.mcnemar
    if test is None or test.p is None:
        return f"no McNemar test: {REASONS[test.reason or '' if test else 'not_right_or_wrong_once']}"
    return f"exact McNemar p {_p(test.p)}"


def _p(value: float | None) -> str:
    return "n/a" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def cell(text: object) -> str:
    """The first characters of a prompt, escaped for a table cell."""
    line = " ".join(str(text).split())
    cut = line if len(line) <= PROMPT else f"{line[:PROMPT]}..."
    return html.escape(cut, quote=False).replace("|", "\\|")


def fenced(text: object) -> str:
    """A text in a code fence longer than any fence in it."""
    shown = shortened(text)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    return f"{fence}text\n{shown}\n{fence}"
