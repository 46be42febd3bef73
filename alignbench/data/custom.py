"""Any file or hub dataset, with the names of its columns given in the config."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from alignbench.core.batches import Row
from alignbench.core.errors import UserError
from alignbench.data.answers import extract_answer
from alignbench.data.preference_pairs import BLANK, IDENTICAL
from alignbench.data.questions import Questions
from alignbench.data.source import Record

RESERVED = ("id", "prompt", "completion", "reference", "chosen", "rejected", "margin")
"""Columns of a row with a fixed meaning; a column of the file so named is read only where a setting names it."""


@dataclass(frozen=True, kw_only=True)
class Custom(Questions):
    """Rows with a prompt and, where settings name them, columns for SFT, for the reward and for preference pairs.

    Rows: id, prompt, completion, reference, and every column of the file under its own name unless it is in RESERVED,
    for rewards that read it. Results are also reported by the values of a column `stratum`. An answer is a text, or a
    list of messages with role and content of which the last assistant message is used. Pairs of blank or identical
    answers are dropped and counted.
    """

    template: str = "{question}"
    """The prompt; {question} is replaced by the column that `prompt` names."""
    prompt: str = "prompt"
    """Column with the prompt."""
    completion: str | None = None
    """Column with the answer for SFT; null: no demonstrations."""
    reference: str | None = None
    """Column with the reference that a reward compares answers with; null: none."""
    chosen: str | None = None
    """Column with the preferred answer of a preference pair; null: no pairs."""
    rejected: str | None = None
    """Column with the other answer."""
    margin: str | None = None
    """Column with the margin by which the chosen answer is better, zero or more; null: unknown."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.chosen is None) != (self.rejected is None):
            raise UserError(
                "data.chosen and data.rejected name the two answers of a preference pair: set both or neither"
            )
        if self.margin is not None and self.chosen is None:
            raise UserError(
                "data.margin is set without data.chosen and data.rejected: set these too, or data.margin=null"
            )

    def demonstrations(self) -> Sequence[Row]:
        """The rows of prompts("train"). Raises UserError when no column is set for them."""
        if self.completion is None:
            raise UserError(
                "no demonstrations for SFT: name the column with data.completion=<column>, or set sft.enabled=false"
            )
        return super().demonstrations()

    def comparisons(self, split: str) -> Sequence[Row]:
        """Rows id, prompt, chosen, rejected, and margin if set. Raises UserError when no columns are set for them."""
        if self.chosen is None or self.rejected is None:
            raise UserError(
                "no preference pairs: name the columns with data.chosen=<column> and data.rejected=<column>"
            )
        rows = zip(self.prompts(split), self._records[split], strict=True)
        return tuple(
            {
                "id": row["id"],
                "prompt": row["prompt"],
                "chosen": extract_answer(record, self.chosen),
                "rejected": extract_answer(record, self.rejected),
                **self._margin(record),
            }
            for row, record in rows
        )

    def _question(self, record: Record) -> str:
        return record.text(self.prompt)

    def _columns(self, record: Record) -> dict[str, Any]:
        columns = {name: value for name, value in record.columns.items() if name not in RESERVED}
        if self.completion is not None:
            columns["completion"] = extract_answer(record, self.completion)
            if not columns["completion"].strip():
                raise UserError(f"{record.where}: column {self.completion!r} is blank, but SFT needs an answer")
        if self.reference is not None:
            columns["reference"] = record[self.reference]
        return columns

    def _flaw(self, record: Record) -> str | None:
        if self.chosen is None or self.rejected is None:
            return None
        better, worse = extract_answer(record, self.chosen).strip(), extract_answer(record, self.rejected).strip()
        if not (better and worse):
            return BLANK
        return IDENTICAL if better == worse else None

    def _margin(self, record: Record) -> dict[str, float]:
        if self.margin is None:
            return {}
        value = record[self.margin]
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < math.inf:
            raise UserError(
                f"{record.where}: column {self.margin!r} must be a number of zero or more, found {value!r:.60}"
            )
        return {"margin": float(value)}
