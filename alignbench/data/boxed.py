r"""The answer in a \boxed{}: the content of the last one, with braces inside it balanced."""

import re

BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
UNBRACED = re.compile(r"[^\s${}]+?(?=[.,;:]*(?:\s|\$|\\[)\]]|$))")
TOKEN = re.compile(r"\\.|[{}]", re.DOTALL)


def boxed(text: str) -> str | None:
    r"""The content of the last \boxed{...}, \fbox{...} or \boxed x, without white space around it.

    None when there is none, and when the last one is never closed: an answer that was cut is no answer. Escaped
    braces such as \{ are text and close nothing.
    """
    boxes = list(BOX.finditer(text))
    if not boxes:
        return None
    start = boxes[-1].end()
    if text[start : start + 1] == "{":
        return _braced(text, start)
    content = UNBRACED.match(text, start)
    return content.group() if content else None


def _braced(text: str, start: int) -> str | None:
    """What stands between the brace at `start` and the one that closes it; None when none does."""
    depth = 0
    for token in TOKEN.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(token.group(), 0)
        if depth == 0:
            return text[start + 1 : token.start()].strip()
    return None
