"""Every error of a command as one message on stderr and an exit code."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from alignbench.core.errors import InvariantBroken, NotComparable, UserError


@contextmanager
def report_errors() -> Iterator[None]:
    """Turn whatever goes wrong inside into one message on stderr and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        leave("interrupted", 130)
    except Exception as error:  # noqa: BLE001 - the last stop of every error
        if os.environ.get("ALIGNBENCH_TRACEBACK") == "1":
            traceback.print_exc()
        from alignbench.runs.config_errors import is_config_error

        mistake = isinstance(error, UserError | OSError) or is_config_error(error)
        leave(f"error: {describe(error)}", 4 if isinstance(error, NotComparable) else 2 if mistake else 1)


def describe(error: Exception) -> str:
    """One message for a person: what was wrong, where, what to do."""
    from alignbench.runs.config_errors import is_config_error

    if is_config_error(error):
        from hydra.core.global_hydra import GlobalHydra

        from alignbench.runs import compose

        GlobalHydra.instance().clear()  # the keys that exist are composed once more, for the message
        return compose.describe(error, [word for word in sys.argv[1:] if not word.startswith("-")])
    if isinstance(error, UserError | InvariantBroken):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return f"{type(error).__name__}: {error} (ALIGNBENCH_TRACEBACK=1 shows where)"


def leave(message: str, code: int) -> None:
    sys.stdout.flush()
    sys.stderr.write(message + "\n")
    sys.exit(code)
