"""What training changed: two models on the same prompts, by how much, on how many of them, how sure."""

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
"""The scores that are compared where every answer has them; the first there is leads."""
SAME = 1e-9
"""Means of a problem nearer than this are equal."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One prompt: its answers before and after, and the mean of each score over them."""

    prompt_id: str
    prompt: str
    reference: Any
    answers: tuple[tuple[Row, ...], tuple[Row, ...]]
    scores: dict[str, tuple[float, float]]

    def change(self, name: str) -> float:
        """After minus before; exactly 0 where nothing but rounding differs."""
        before, after = self.scores[name]
        return 0.0 if abs(after - before) < SAME else after - before


@dataclass(frozen=True, kw_only=True)
class Change:
    """One score over all problems; `test` pairs the problems, so that answers to one prompt count as one."""

    metric: Metric
    means: tuple[float, float]
    test: Paired
    percentage: Estimate
    improved: int
    worsened: int
    equal: int
    mcnemar: McNemar | None
    """Only for one answer to each prompt that is right or wrong."""

    @property
    def problems(self) -> int:
        """How many there are."""
        return self.improved + self.worsened + self.equal

    def share(self, count: int) -> Estimate:
        """That many of the problems, with Wilson's interval, which exists where no problem changed too."""
        return statistics.wilson(count, self.problems)


def problems(before: Sequence[Row], after: Sequence[Row]) -> list[Problem]:
    """Both files problem by problem. Raises UserError when they do not hold as many answers to the same prompts."""
    old, new = _by_prompt(before), _by_prompt(after)
    if strange := [name for name in (*old, *new) if name not in old or name not in new]:
        raise UserError(
            f"prompt {strange[0]} is in one file only ({len(strange)} such): compare answers to the same prompts"
        )
    names = [name for name in NAMES if all(_value(name, row) is not None for row in (*before, *after))]
    if not names:
        raise UserError("no score is there for every answer: rows need `scores` with `total`, as a run writes them")
    for name in names:
        if broken := [row["prompt_id"] for row in (*before, *after) if not isfinite(_value(name, row) or 0.0)]:
            raise UserError(f"an answer to prompt {broken[0]} has no finite number as its {metric_named(name).label}")
    sizes = {len(rows) for group in (old, new) for rows in group.values()}
    if len(sizes) > 1:
        raise UserError(
            f"there are {min(sizes)} to {max(sizes)} answers to a prompt: give as many to each, before and after"
        )
    return [_problem(name, old[name], new[name], names) for name in old]


def changes(found: Sequence[Problem]) -> list[Change]:
    """Every score that there is."""
    return [_change(name, found) for name in found[0].scores]


def picked(found: Sequence[Problem]) -> list[tuple[str, Problem]]:
    """Problems to show side by side, by a fixed rule."""
    name = next(iter(found[0].scores))
    most, least = (choose(found, key=lambda problem: problem.change(name)) for choose in (max, min))
    same = next((problem for problem in found if problem.change(name) == 0), None)
    return [
        *([("the problem that improved most", most)] if most.change(name) > 0 else []),
        *([("the problem that got worse most", least)] if least.change(name) < 0 else []),
        *([("the first problem that stayed equal", same)] if same else []),
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
        raise UserError(f"prompt {prompt_id} is not the same text in both files: compare answers to the same prompts")
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
    """100 (after - before) / before; of a mean that is not above zero there is no percentage."""
    if before <= 0:
        return Estimate(value=None, reason="start_mean_is_zero" if before == 0 else "start_mean_below_zero")
    return Estimate(value=100 * (after - before) / before)
