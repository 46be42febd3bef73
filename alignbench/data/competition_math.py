r"""Competition mathematics (MATH, Hendrycks et al. 2021) with the final answer in \boxed{}."""

import re
from dataclasses import dataclass
from typing import Any

from alignbench.core.errors import UserError
from alignbench.data.boxed import extract_boxed
from alignbench.data.questions import Questions
from alignbench.data.source import Record


@dataclass(frozen=True, kw_only=True)
class MATH(Questions):
    r"""MATH, or any file with its two columns: a problem, and a solution with the final answer in \boxed{}.

    The problem is read from `problem` or `question`, the solution from `solution` or `answer`. Rows: id, prompt,
    completion (the solution), reference (the content of the box); level and subject where the file has them, and
    stratum (the level), by which results are reported. The hub withdrew the authors' copy after a claim on the problem
    texts; a local file can replace the hub copy.
    """

    name: str | None = "DigitalLearningGmbH/MATH-lighteval"
    """The hub name, used when `path` is null."""
    template: str = "Problem: {question}\nSolve it step by step and give the final answer in \\boxed{}.\nSolution:\n"
    """The prompt; {question} is replaced by the problem."""

    def _question(self, record: Record) -> str:
        return record.text(record.first("problem", "question"))

    def _columns(self, record: Record) -> dict[str, Any]:
        column = record.first("solution", "answer")
        solution = record.text(column)
        answer = extract_boxed(solution)
        if not answer:
            raise UserError(f"{record.where}: column {column!r} has no answer in \\boxed{{}}: ...{solution[-60:]!r}")
        level, subject = record.columns.get("level"), record.columns.get(record.first("type", "subject"))
        metadata = {"level": level, "subject": subject, "stratum": _stratum(level)}
        return {"completion": solution, "reference": answer} | {k: v for k, v in metadata.items() if v is not None}


def _stratum(level: object) -> str | None:
    """The level as part of a metric name: level_5 for "Level 5" and for 5; None without a level."""
    digits = re.search(r"\d+", str(level))
    return f"level_{digits.group()}" if digits else None
