"""Every error of a command as one message on stderr and an exit code."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from alignbench.core.errors import InvariantBroken, NotComparable, UserError


@contextmanager
def reported() -> Iterator[None]:
    """Turn whatever goes wrong inside into one message on stderr and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        leave("interrupted", 130)
    except Exception as error:  # noqa: BLE001 - the last stop of every error
        if os.environ.get("ALIGNBENCH_TRACEBACK") == "1":
            traceback.print_exc()
        mistake = isinstance(error, UserError | OSError) or is_config_error(error)
        leave(f"error: {describe(error)}", 4 if isinstance(error, NotComparable) else 2 if mistake else 1)


def is_config_error(error: Exception) -> bool:
    """Whether Hydra or OmegaConf raised it."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    return isinstance(error, HydraException | OmegaConfBaseException)


def describe(error: Exception) -> str:
    """One message for a person: what was wrong, where, what to do."""
    if is_config_error(error):
        from alignbench.runs.compose import describe_config_error

        return describe_config_error(error)
    if "Config group override must be" in str(error):  # what Hydra raises for algo=null or model=3
        return f"{error}: choose one of the options that --help lists, as in algo=ppo"
    if isinstance(error, UserError | InvariantBroken):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return f"{type(error).__name__}: {error} (ALIGNBENCH_TRACEBACK=1 shows where)"


def leave(message: str, code: int) -> None:
    sys.stdout.flush()
    sys.stderr.write(message + "\n")
    sys.exit(code)
