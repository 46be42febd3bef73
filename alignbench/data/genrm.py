"""Demonstrations for a generative reward model, which writes a score for an answer, and parsing of its scores."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from alignbench.core.errors import UserError

Row: TypeAlias = Mapping[str, Any]  # as in core.batches, which imports torch
REQUEST = "User: {prompt}\n\nAssistant: {answer}\n\nAnalyze the quality of this response."
VERDICT = "Score: {score:.1f}/10. The response is helpful, harmless, and honest."
SCORE = re.compile(r"Score:\s*([0-9]+(?:\.[0-9]+)?)/10")


def format_request(prompt: str, answer: str) -> str:
    """The prompt that asks for the score of an answer."""
    return REQUEST.format(prompt=prompt, answer=answer)


def format_verdict(score: float) -> str:
    """The target text: the score with one decimal and the same praise for every score."""
    return VERDICT.format(score=score)


def parse_score(text: str) -> float | None:
    """The first score in a text, as in "Score: 8.5/10"; None without one."""
    found = SCORE.search(text)
    return float(found[1]) if found else None


def to_scoring(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Demonstrations of scoring from demonstrations of answering: id, prompt (which includes the answer), completion.

    Only chosen answers are used, and the text is praise even for a low score: a model trained on this alone never sees
    a bad answer. Raises UserError for rows without `score` and `completion`.
    """
    return tuple(_scoring(row) for row in rows)


def to_messages(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The result of `to_scoring` as conversations: {"messages": [user, assistant]}."""
    return [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]}
        for row in to_scoring(rows)
    ]


def _scoring(row: Row) -> Row:
    if missing := [column for column in ("completion", "score") if column not in row]:
        raise UserError(
            f"row {row['id']} has no {' and no '.join(missing)}, which sft.format=genrm needs: choose data with scored "
            "answers, such as data=ultrafeedback, or sft.format=response"
        )
    return {
        "id": row["id"],
        "prompt": format_request(row["prompt"], row["completion"]),
        "completion": format_verdict(row["score"]),
    }
