"""What can go wrong that a person can mend: each message says what, where, and what to do."""

from collections.abc import Mapping, Sequence
from typing import Any


class UserError(ValueError):
    """Something in the config, the data or the environment is wrong; the message names the remedy."""


class NotComparable(UserError):
    """The methods of a study would not run under the same conditions; the message names the keys and the remedy."""


class InvariantBroken(RuntimeError):
    """Something that must hold in every run does not; going on would waste the run."""

    step: int | None = None
    """The step that broke it, counted from 1; None where it was not one."""
    rows: Sequence[Mapping[str, Any]] = ()
    """The batch of that step, to be looked at."""
