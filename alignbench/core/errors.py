"""What can go wrong that a person can mend: each message says what, where, and what to do."""


class UserError(ValueError):
    """Something in the config, the data or the environment is wrong; the message names the remedy."""


class NotComparable(UserError):
    """The methods of a study would not run under the same conditions; the message names the keys and the remedy."""


class InvariantBroken(RuntimeError):
    """Something that must hold in every run does not; going on would waste the run."""
