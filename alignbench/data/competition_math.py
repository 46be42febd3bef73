r"""Competition mathematics (MATH, Hendrycks et al. 2021); the answer stands in \boxed{}."""

import re
from dataclasses import dataclass
from typing import Any

from alignbench.core.errors import UserError
from alignbench.data.boxed import boxed
from alignbench.data.questions import Questions
from alignbench.data.source import Record


@dataclass(frozen=True, kw_only=True)
class MATH(Questions):
    r"""MATH, or any file with its two columns: a problem, and a solution with the final answer in \boxed{}.

    The problem may stand in `problem` or `question`, the solution in `solution` or `answer`. Rows: id, prompt,
    completion (the solution), reference (what the box holds); level and subject where the file has them, and the
    level as the stratum, so that results are told level by level. The hub withdrew the authors' copy after a claim
    on the problem texts; should another copy vanish too, a local file works as well.
    """

    name: str | None = "DigitalLearningGmbH/MATH-lighteval"
    """The hub name, used when `path` is null."""
    template: str = "Problem: {question}\nSolve it step by step and give the final answer in \\boxed{}.\nSolution:\n"
    """The prompt; {question} stands for the problem."""

    def _question(self, record: Record) -> str:
        return record.text(record.first("problem", "question"))

    def _columns(self, record: Record) -> dict[str, Any]:
        column = record.first("solution", "answer")
        solution = record.text(column)
        answer = boxed(solution)
        if not answer:
            raise UserError(f"{record.where}: column {column!r} has no answer in \\boxed{{}}: ...{solution[-60:]!r}")
        level, subject = record.columns.get("level"), record.columns.get(record.first("type", "subject"))
        about = {"level": level, "subject": subject, "stratum": _stratum(level)}
        return {"completion": solution, "reference": answer} | {k: v for k, v in about.items() if v is not None}


def _stratum(level: object) -> str | None:
    """A name that a metric can bear: level_5 for "Level 5" and for 5; None where no level is given."""
    digits = re.search(r"\d+", str(level))
    return f"level_{digits.group()}" if digits else None
