"""Errors that a user can fix: each message says what is wrong, where, and what to do."""

from collections.abc import Mapping, Sequence
from typing import Any


class UserError(ValueError):
    """The config, the data or the environment is wrong; the message says how to fix it."""


class NotComparable(UserError):
    """The methods of a study would run under different conditions; the message names the keys and a fix."""


class InvariantBroken(RuntimeError):
    """An invariant of training does not hold, and continuing would waste the run."""

    step: int | None = None
    """The step that broke it, counted from 1; None if it was not a step."""
    rows: Sequence[Mapping[str, Any]] = ()
    """The batch of that step, for inspection."""
