"""Command-line arguments of the verbs: key=value pairs, and --help."""

import difflib
import sys
from collections.abc import Collection, Sequence

from alignbench.core.errors import UserError

HELP = {"--help", "-h", "help"}


def read_arguments(arguments: Sequence[str] | None, usage: str) -> list[str] | None:
    """The given arguments, or those of the command line; None after printing the usage if they contain --help."""
    found = list(sys.argv[1:] if arguments is None else arguments)
    if HELP & set(found):
        sys.stdout.write(usage)
        return None
    return found


def parse_key_values(arguments: Sequence[str], keys: Collection[str], prefixes: tuple[str, ...] = ()) -> dict[str, str]:
    """The value of each key. Raises UserError for an argument that is not key=value with a key in `keys`.

    Keys that start with one of `prefixes` are accepted too.
    """
    values: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.lstrip("-").partition("=")
        if not (equals and (key in keys or (prefixes and key.startswith(prefixes)))):
            near = difflib.get_close_matches(key, keys, n=1)
            hint = f"did you mean {near[0]}=...? " if near and near[0] != key else ""
            raise UserError(
                f"{argument!r} is not understood; {hint}use key=value with one of {', '.join(keys)} (see --help)"
            )
        values[key] = value
    return values
