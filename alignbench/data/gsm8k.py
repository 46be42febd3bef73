"""Grade-school word problems (Cobbe et al. 2021), from the hub or a local file."""

import re
from dataclasses import dataclass
from typing import Any

from alignbench.core.errors import UserError
from alignbench.data.questions import Questions
from alignbench.data.source import Record

CALCULATOR = re.compile(r"<<[^<>]*>>")
MARK = "####"


@dataclass(frozen=True, kw_only=True)
class GSM8K(Questions):
    """GSM8K, or any file with its two columns: `question`, and `answer` ending in "#### <number>".

    Rows: id, prompt, completion (the written solution), reference (the number).
    """

    name: str | None = "openai/gsm8k"
    """The hub name, used when `path` is null."""
    config: str | None = "main"
    """Configuration of the hub dataset."""
    template: str = "Question: {question}\nAnswer:\n"
    """The prompt; {question} is replaced by the question."""
    strip_calculator: bool = True
    """Remove calculator annotations such as <<48/2=24>> from the completions."""

    def _question(self, record: Record) -> str:
        return record.text("question")

    def _columns(self, record: Record) -> dict[str, Any]:
        answer = record.text("answer")
        _, mark, gold = answer.rpartition(MARK)
        if not mark or not gold.strip():
            raise UserError(f"{record.where}: column 'answer' does not end in '#### <number>': ...{answer[-60:]!r}")
        completion = CALCULATOR.sub("", answer) if self.strip_calculator else answer
        return {"completion": completion, "reference": gold.strip()}
