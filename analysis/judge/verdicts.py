"""What came back: a verdict, or the reason why there is none."""

import json
import re
from dataclasses import dataclass
from typing import Literal

Outcome = Literal["A", "B", "tie", "refusal", "length", "content_filter", "malformed"]
VERDICTS: tuple[Outcome, ...] = ("A", "B", "tie")
TROUBLES: tuple[Outcome, ...] = ("refusal", "length", "content_filter", "malformed")
LAST = re.compile(r'\[\[\s*(A|B|tie)\s*\]\]|"verdict"\s*:\s*"(A|B|tie)"', re.IGNORECASE)
SPELLED: dict[str, Outcome] = {"a": "A", "b": "B", "tie": "tie"}


@dataclass(frozen=True, slots=True)
class Reply:
    """What the endpoint said, and what it counted."""

    content: str | None
    refusal: str | None
    finish: str
    model: str
    fingerprint: str | None
    input_tokens: int
    cached_tokens: int
    output_tokens: int


def read(reply: Reply) -> Outcome:
    """The verdict in a reply.

    JSON by the schema, else the last [[A]], [[B]] or [[tie]]: the last, because reasoning may quote an answer that
    contains one. A reply that was cut off has no verdict, whatever stands in it.
    """
    if reply.refusal:
        return "refusal"
    if reply.finish in ("length", "content_filter"):
        return "length" if reply.finish == "length" else "content_filter"
    text = (reply.content or "").strip()
    try:
        said = json.loads(text)
    except json.JSONDecodeError:
        found = list(LAST.finditer(text))
        return SPELLED[(found[-1][1] or found[-1][2]).lower()] if found else "malformed"
    verdict = said.get("verdict") if isinstance(said, dict) else None
    return SPELLED.get(verdict.lower(), "malformed") if isinstance(verdict, str) else "malformed"
