"""Reports every error of a command as one message on stderr and an exit code."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from alignbench.core.errors import InvariantBroken, NotComparable, UserError


@contextmanager
def report_errors() -> Iterator[None]:
    """Report an exception of the block as one message on stderr and exit.

    Exit codes: 1 for an internal error, 2 for invalid input, 4 for runs that are not comparable, 130 if interrupted.
    """
    try:
        yield
    except KeyboardInterrupt:
        exit_with("interrupted", 130)
    except Exception as error:  # noqa: BLE001 - every error is reported here
        if os.environ.get("ALIGNBENCH_TRACEBACK") == "1":
            traceback.print_exc()
        from alignbench.runs.config_errors import is_config_error

        invalid_input = isinstance(error, UserError | OSError) or is_config_error(error)
        exit_with(f"error: {describe(error)}", 4 if isinstance(error, NotComparable) else 2 if invalid_input else 1)


def describe(error: Exception) -> str:
    """One message for the user: what is wrong, where, and how to fix it."""
    from alignbench.runs.config_errors import is_config_error

    if is_config_error(error):
        from hydra.core.global_hydra import GlobalHydra

        from alignbench.runs import compose

        GlobalHydra.instance().clear()  # describe composes the config again to find the known keys
        return compose.describe(error, [word for word in sys.argv[1:] if not word.startswith("-")])
    if isinstance(error, UserError | InvariantBroken):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return f"{type(error).__name__}: {error} (set ALIGNBENCH_TRACEBACK=1 for the traceback)"


def exit_with(message: str, code: int) -> None:
    sys.stdout.flush()
    sys.stderr.write(message + "\n")
    sys.exit(code)
