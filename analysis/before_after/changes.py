"""Compares two models on the same prompts: score differences paired by problem, with intervals and tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from alignbench.core.errors import UserError

from .. import statistics
from ..comparison.variance import VALUES
from ..statistics import Estimate, McNemar, Paired
from ..study.metrics import Metric, metric_named

Row = Mapping[str, Any]
NAMES = ("accuracy", "gold", "avg_reward")
"""The scores that are compared if every answer has them; the first available one is the headline."""
SAME = 1e-9
"""Means of a problem that differ by less are considered equal."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One prompt: its answers before and after, and the mean of each score over them."""

    prompt_id: str
    prompt: str
    reference: Any
    answers: tuple[tuple[Row, ...], tuple[Row, ...]]
    scores: dict[str, tuple[float, float]]

    def change(self, name: str) -> float:
        """After minus before; exactly 0 for differences within floating-point error."""
        before, after = self.scores[name]
        return 0.0 if abs(after - before) < SAME else after - before


@dataclass(frozen=True, kw_only=True)
class Change:
    """One score over all problems; `test` is paired by problem, so several answers to one prompt count as one."""

    metric: Metric
    means: tuple[float, float]
    test: Paired
    percentage: Estimate
    improved: int
    worsened: int
    equal: int
    mcnemar: McNemar | None
    """None unless there is one answer to each prompt, correct or incorrect."""

    @property
    def problems(self) -> int:
        """Number of problems."""
        return self.improved + self.worsened + self.equal

    def share(self, count: int) -> Estimate:
        """The share of the problems with Wilson's interval, which exists even if no problem changed."""
        return statistics.wilson(count, self.problems)


def problems(before: Sequence[Row], after: Sequence[Row]) -> list[Problem]:
    """Match both files by problem. Raises UserError unless they have equally many answers to the same prompts."""
    old, new = _by_prompt(before), _by_prompt(after)
    if strange := [name for name in (*old, *new) if name not in old or name not in new]:
        raise UserError(
            f"prompt {strange[0]} is in one file only ({len(strange)} such): compare answers to the same prompts"
        )
    names = [name for name in NAMES if all(_value(name, row) is not None for row in (*before, *after))]
    if not names:
        raise UserError(
            "no score is available for every answer: rows need `scores` with `total`, as in the eval.jsonl of a run"
        )
    for name in names:
        if broken := [row["prompt_id"] for row in (*before, *after) if not isfinite(_value(name, row) or 0.0)]:
            raise UserError(f"an answer to prompt {broken[0]} has a NaN or infinite {metric_named(name).label}")
    sizes = {len(rows) for group in (old, new) for rows in group.values()}
    if len(sizes) > 1:
        raise UserError(f"the number of answers to a prompt varies from {min(sizes)} to {max(sizes)}: it must be equal")
    return [_problem(name, old[name], new[name], names) for name in old]


def compute_changes(found: Sequence[Problem]) -> list[Change]:
    """The change of every available score."""
    return [_change(name, found) for name in found[0].scores]


def select_examples(found: Sequence[Problem]) -> list[tuple[str, Problem]]:
    """Problems to display side by side, selected by a fixed rule."""
    name = next(iter(found[0].scores))
    most, least = (choose(found, key=lambda problem: problem.change(name)) for choose in (max, min))
    same = next((problem for problem in found if problem.change(name) == 0), None)
    return [
        *([("the problem that improved most", most)] if most.change(name) > 0 else []),
        *([("the problem that worsened most", least)] if least.change(name) < 0 else []),
        *([("the first problem with equal scores", same)] if same else []),
    ]


def _by_prompt(rows: Sequence[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row["prompt_id"]), []).append(row)
    return groups


def _value(name: str, row: Row) -> float | None:
    value = VALUES[f"final/{name}"](dict(row))
    return None if value is None else float(value)


def _problem(prompt_id: str, old: Sequence[Row], new: Sequence[Row], names: Sequence[str]) -> Problem:
    if len({row["prompt"] for row in (*old, *new)}) > 1:
        raise UserError(f"prompt {prompt_id} has different texts in the two files: compare answers to the same prompts")
    means = {name: (_mean(name, old), _mean(name, new)) for name in names}
    return Problem(
        prompt_id=prompt_id,
        prompt=old[0]["prompt"],
        reference=old[0].get("reference"),
        answers=(tuple(old), tuple(new)),
        scores=means,
    )


def _mean(name: str, rows: Sequence[Row]) -> float:
    return float(np.mean([_value(name, row) for row in rows]))


def _change(name: str, found: Sequence[Problem]) -> Change:
    before, after = ([problem.scores[name][side] for problem in found] for side in (0, 1))
    gaps = [problem.change(name) for problem in found]
    improved, worsened = sum(gap > 0 for gap in gaps), sum(gap < 0 for gap in gaps)
    means = float(np.mean(before)), float(np.mean(after))
    single = all(len(problem.answers[0]) == 1 for problem in found) and {*before, *after} <= {0.0, 1.0}
    return Change(
        metric=metric_named(name),
        means=means,
        test=statistics.paired(after, before),
        percentage=_percentage(*means),
        improved=improved,
        worsened=worsened,
        equal=len(gaps) - improved - worsened,
        mcnemar=statistics.mcnemar(worsened, improved) if single else None,
    )


def _percentage(before: float, after: float) -> Estimate:
    """100 (after - before) / before; undefined unless the mean before is positive."""
    if before <= 0:
        return Estimate(value=None, reason="start_mean_is_zero" if before == 0 else "start_mean_below_zero")
    return Estimate(value=100 * (after - before) / before)
