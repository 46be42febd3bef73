"""Parses the reply of a judge into a verdict or a failure."""

import json
import re
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["A", "B", "tie", "refusal", "length", "content_filter", "malformed"]
VERDICTS: tuple[Outcome, ...] = ("A", "B", "tie")
FAILURES: tuple[Outcome, ...] = ("refusal", "length", "content_filter", "malformed")
VERDICT_PATTERN = re.compile(r'\[\[\s*(A|B|tie)\s*\]\]|"verdict"\s*:\s*"(A|B|tie)"', re.IGNORECASE)
OUTCOMES: dict[str, Outcome] = {"a": "A", "b": "B", "tie": "tie"}


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply of the endpoint and its token counts; `finish` is the finish_reason of the completion."""

    content: str | None
    refusal: str | None
    finish: str
    model: str
    system_fingerprint: str | None
    input_tokens: int
    cached_tokens: int
    output_tokens: int


def parse_verdict(reply: Reply) -> Outcome:
    """Parse the verdict of a reply; a reply without a verdict yields the kind of failure.

    The reply is JSON that follows the schema, or text. In text the last [[A]], [[B]] or [[tie]] counts, because the
    reasoning may quote an answer that contains one. A reply truncated at the token limit has no verdict.
    """
    if reply.refusal:
        return "refusal"
    if reply.finish in ("length", "content_filter"):
        return "length" if reply.finish == "length" else "content_filter"
    text = (reply.content or "").strip()
    try:
        body = json.loads(text)
    except json.JSONDecodeError:
        found = list(VERDICT_PATTERN.finditer(text))
        return OUTCOMES[(found[-1][1] or found[-1][2]).lower()] if found else "malformed"
    verdict = body.get("verdict") if isinstance(body, dict) else None
    return OUTCOMES.get(verdict.lower(), "malformed") if isinstance(verdict, str) else "malformed"
