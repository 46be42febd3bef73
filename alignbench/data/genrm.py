"""Answers to be scored instead of written: demonstrations for a generative reward model, and its scores read back."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from alignbench.core.errors import UserError

Row: TypeAlias = Mapping[str, Any]  # as in core.batches, which imports torch
REQUEST = "User: {prompt}\n\nAssistant: {answer}\n\nAnalyze the quality of this response."
VERDICT = "Score: {score:.1f}/10. The response is helpful, harmless, and honest."
SCORE = re.compile(r"Score:\s*([0-9]+(?:\.[0-9]+)?)/10")


def request(prompt: str, answer: str) -> str:
    """What a scorer is asked about an answer."""
    return REQUEST.format(prompt=prompt, answer=answer)


def verdict(score: float) -> str:
    """What it is taught to say: the score with one decimal, and praise, whatever the score."""
    return VERDICT.format(score=score)


def parse_score(text: str) -> float | None:
    """The first score in a text, as in "Score: 8.5/10"; None without one."""
    found = SCORE.search(text)
    return float(found[1]) if found else None


def as_scoring(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Demonstrations of answering as demonstrations of scoring: id, prompt (with the answer in it), completion.

    Only chosen answers are seen, and the words are praise even for a low score: a model trained on this alone never
    meets a bad answer. Raises UserError for rows without `score` and `completion`.
    """
    return tuple(_scoring(row) for row in rows)


def as_messages(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The same as conversations: {"messages": [user, assistant]}."""
    return [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]}
        for row in as_scoring(rows)
    ]


def _scoring(row: Row) -> Row:
    if missing := [column for column in ("completion", "score") if column not in row]:
        raise UserError(
            f"row {row['id']} has no {' and no '.join(missing)} to learn scoring from: choose data with scored "
            "answers, such as data=ultrafeedback, or sft.format=response"
        )
    return {"id": row["id"], "prompt": request(row["prompt"], row["completion"]), "completion": verdict(row["score"])}
