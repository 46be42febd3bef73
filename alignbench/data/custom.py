"""Your own data: any file or hub dataset, with the names of its columns in the config."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from alignbench.core.batches import Row
from alignbench.core.errors import UserError
from alignbench.data.answers import answer
from alignbench.data.preference_pairs import BLANK, IDENTICAL
from alignbench.data.questions import Questions
from alignbench.data.source import Record

KEYS = ("id", "prompt", "completion", "reference", "chosen", "rejected", "margin")
"""What a row's own columns are called; a file's column of such a name is read only where a knob names it."""


@dataclass(frozen=True, kw_only=True)
class Custom(Questions):
    """Any rows with a prompt, and columns to imitate, to verify by or to prefer by as far as knobs name them.

    Rows: id, prompt, completion, reference, and every other column under its own name, for rewards that read it; a
    column `stratum` is what results are told by. An answer is a text or a list of messages with role and content,
    whose last from the assistant counts. Pairs of blank or identical answers are dropped and counted.
    """

    template: str = "{question}"
    """The prompt; {question} stands for what is in the column `prompt`."""
    prompt: str = "prompt"
    """The column with the prompt."""
    completion: str | None = None
    """The column with the answer to imitate; null: there is nothing to imitate."""
    reference: str | None = None
    """The column with what a reward compares answers with; null: there is none."""
    chosen: str | None = None
    """The column with the preferred answer of a pair; null: there are no pairs."""
    rejected: str | None = None
    """The column with the other answer."""
    margin: str | None = None
    """The column that says by how much the chosen answer is better, zero or more; null: nobody knows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.chosen is None) != (self.rejected is None):
            raise UserError("data.chosen and data.rejected name the two answers of a pair: set both or neither")
        if self.margin is not None and self.chosen is None:
            raise UserError("data.margin is set without data.chosen and data.rejected, whose margin it would be")

    def demonstrations(self) -> Sequence[Row]:
        """The rows of prompts("train"). Raises UserError when no column has an answer to imitate."""
        if self.completion is None:
            raise UserError(
                "there is nothing to imitate: name the column with data.completion=<column>, or set sft.enabled=false"
            )
        return super().demonstrations()

    def comparisons(self, split: str) -> Sequence[Row]:
        """Rows id, prompt, chosen, rejected, and margin where it is named. Raises UserError when there are no pairs."""
        if self.chosen is None or self.rejected is None:
            raise UserError(
                "there is nothing to prefer by: name the columns with data.chosen=<column> and data.rejected=<column>"
            )
        rows = zip(self.prompts(split), self._records[split], strict=True)
        return tuple(
            {
                "id": row["id"],
                "prompt": row["prompt"],
                "chosen": answer(record, self.chosen),
                "rejected": answer(record, self.rejected),
                **self._margin(record),
            }
            for row, record in rows
        )

    def _question(self, record: Record) -> str:
        return record.text(self.prompt)

    def _columns(self, record: Record) -> dict[str, Any]:
        named = {self.prompt, self.completion, self.reference, self.chosen, self.rejected, self.margin, *KEYS}
        columns = {name: value for name, value in record.columns.items() if name not in named}
        if self.completion is not None:
            columns["completion"] = answer(record, self.completion)
            if not columns["completion"].strip():
                raise UserError(f"{record.where}: column {self.completion!r} is blank: there is nothing to imitate")
        if self.reference is not None:
            columns["reference"] = record[self.reference]
        return columns

    def _flaw(self, record: Record) -> str | None:
        if self.chosen is None or self.rejected is None:
            return None
        better, worse = answer(record, self.chosen).strip(), answer(record, self.rejected).strip()
        if not (better and worse):
            return BLANK
        return IDENTICAL if better == worse else None

    def _margin(self, record: Record) -> dict[str, float]:
        if self.margin is None:
            return {}
        value = record[self.margin]
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < math.inf:
            raise UserError(
                f"{record.where}: column {self.margin!r} must be a number of zero or more, found {value!r:.60}"
            )
        return {"margin": float(value)}
