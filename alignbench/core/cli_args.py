"""The words behind a command: key=value, or the wish for help."""

import sys
from collections.abc import Collection, Sequence

from alignbench.core.errors import UserError

HELP = {"--help", "-h", "help"}


def typed(words: Sequence[str] | None, usage: str) -> list[str] | None:
    """The words of the command line, or those that are given; None where they asked for help, which is printed."""
    given = list(sys.argv[1:] if words is None else words)
    if HELP & set(given):
        sys.stdout.write(usage)
        return None
    return given


def key_values(words: Sequence[str], keys: Collection[str], beginnings: tuple[str, ...] = ()) -> dict[str, str]:
    """What each key is set to. Raises UserError for a word that is no key=value with one of `keys`.

    A key may also be longer than one of `beginnings`.
    """
    known: dict[str, str] = {}
    for word in words:
        key, equals, value = word.lstrip("-").partition("=")
        if not (equals and (key in keys or (beginnings and key.startswith(beginnings)))):
            raise UserError(f"{word!r} is not understood; use key=value with one of {', '.join(keys)} (see --help)")
        known[key] = value
    return known
