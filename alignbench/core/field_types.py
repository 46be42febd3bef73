"""Types of numeric settings with their ranges, which are checked when a config is built."""

from typing import Annotated

from annotated_types import Ge, Gt, Interval, Lt

Count = Annotated[int, Ge(1)]
"""A whole number, one or more."""

Size = Annotated[int, Ge(0)]
"""A whole number, zero or more."""

Positive = Annotated[float, Gt(0)]
"""Above zero."""

NonNegative = Annotated[float, Ge(0)]
"""Zero or more."""

AboveOne = Annotated[float, Gt(1)]
"""Above one."""

Fraction = Annotated[float, Interval(ge=0, le=1)]
"""From 0 to 1, both included."""

BelowOne = Annotated[float, Interval(gt=0, lt=1)]
"""Between 0 and 1, both excluded."""

Momentum = Annotated[float, Ge(0), Lt(1)]
"""From 0 included to 1 excluded."""
