r"""Extracts the content of the last \boxed{} of a text, with balanced braces."""

import re

BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
UNBRACED = re.compile(r"[^\s${}]+?(?=[.,;:]*(?:\s|\$|\\[)\]]|$))")
TOKEN = re.compile(r"\\.|[{}]", re.DOTALL)


def extract_boxed(text: str) -> str | None:
    r"""The content of the last \boxed{...}, \fbox{...} or \boxed x, stripped of white space.

    None without a box, and when the last one is not closed, as in a truncated answer. Escaped braces such as \{ do not
    count as braces.
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
    """The text between the brace at `start` and its closing brace; None when it is not closed."""
    depth = 0
    for token in TOKEN.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(token.group(), 0)
        if depth == 0:
            return text[start + 1 : token.start()].strip()
    return None
