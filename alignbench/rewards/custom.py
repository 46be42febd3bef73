"""Your own reward: a Python function of prompts, completions and columns that returns one number for each."""

import inspect
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import torch

from alignbench.core.batches import Rollouts, Row, Scores
from alignbench.core.errors import UserError
from alignbench.rewards.import_function import resolve
from alignbench.rewards.source_hash import fingerprint

NOT_COLUMNS = ("id", "prompt", "completion")


@dataclass(frozen=True, kw_only=True)
class Custom:
    """A reward function called as fn(prompts=[...], completions=[...], **columns), which returns a list of floats.

    The columns are those of the dataset's rows, such as `reference`, each as a list. A function without **kwargs
    gets only those it names.
    """

    function: str
    """Where it is: "package.module:name" or "path/to/file.py:name"."""

    def __post_init__(self) -> None:
        _ = self._signature  # so that a wrong name fails before anything is trained

    def __call__(self, rollouts: Rollouts) -> Scores:
        """Scores as the function returns them. Raises UserError when it raises, or returns anything but n numbers."""
        arguments = self._arguments(rollouts.rows, rollouts.texts)
        try:
            returned = self._function(**arguments)
        except Exception as error:
            raise UserError(self._blame(error, rollouts)) from error
        total = torch.tensor(self._numbers(returned, rollouts.rows), dtype=torch.float32)
        return Scores(total=total, components={self._name: total})

    def check(self, rows: Sequence[Row]) -> None:
        """Raise UserError, before anything is trained, when the function requires a column that the rows lack."""
        self._arguments(rows, [""] * len(rows))

    def content_hash(self) -> str:
        """The sha256 of the knob, this class and the file the function stands in."""
        module = inspect.getmodule(inspect.unwrap(self._function))
        return fingerprint(self, module or self._function)

    @cached_property
    def _function(self) -> Callable:
        return resolve(self.function)

    @property
    def _name(self) -> str:
        return self.function.rpartition(":")[2]

    @cached_property
    def _signature(self) -> Mapping[str, inspect.Parameter]:
        parameters = inspect.signature(self._function).parameters
        if not _takes_any(parameters) and (lacks := {"prompts", "completions"} - parameters.keys()):
            raise UserError(
                f"reward.function={self.function}: it must take prompts and completions by name; "
                f"it lacks {', '.join(sorted(lacks))}"
            )
        return parameters

    def _arguments(self, rows: Sequence[Row], texts: Sequence[str]) -> dict[str, list]:
        columns = {name for row in rows for name in row}.difference(NOT_COLUMNS)
        taken = columns if _takes_any(self._signature) else columns & self._signature.keys()
        given = {"prompts": [row["prompt"] for row in rows], "completions": list(texts)}
        required = {p.name for p in self._signature.values() if p.default is p.empty and p.kind not in _GATHERING}
        if missing := required - taken - given.keys():
            raise UserError(
                f"reward.function={self.function} requires {', '.join(sorted(missing))}, which the dataset does not "
                f"have; its columns are: {', '.join(sorted(columns)) or 'none'}"
            )
        return given | {name: [self._value(row, name) for row in rows] for name in sorted(taken)}

    def _value(self, row: Row, column: str) -> Any:
        if column not in row:
            raise UserError(f"reward.function={self.function}: row {row['id']} has no column {column!r}, others have")
        return row[column]

    def _numbers(self, returned: Any, rows: Sequence[Row]) -> list[float]:
        if isinstance(returned, torch.Tensor | np.ndarray):
            if tuple(returned.shape) != (len(rows),):
                raise UserError(f"{self._returned} shape {tuple(returned.shape)}, expected ({len(rows)},)")
            returned = returned.tolist()
        if not isinstance(returned, list | tuple):
            raise UserError(f"{self._returned} {type(returned).__name__}, expected a list of {len(rows)} numbers")
        if len(returned) != len(rows):
            raise UserError(f"{self._returned} {len(returned)} values for {len(rows)} completions")
        return [self._number(value, row) for value, row in zip(returned, rows, strict=True)]

    def _number(self, value: Any, row: Row) -> float:
        if isinstance(value, torch.Tensor) and value.ndim == 0:
            value = value.item()
        if not isinstance(value, Real | np.bool_) or not math.isfinite(value):
            raise UserError(f"{self._returned} {value!r:.60} for row {row['id']}, expected a finite number")
        return float(value)

    @property
    def _returned(self) -> str:
        return f"reward.function={self.function} returned"

    def _blame(self, error: Exception, rollouts: Rollouts) -> str:
        place = traceback.extract_tb(error.__traceback__)[-1]
        row = rollouts.rows[self._first_failing(rollouts)]
        return (
            f"reward.function={self.function} raised {type(error).__name__}: {error}\n"
            f"at {place.filename}, line {place.lineno}, for row {row['id']} with the prompt {row['prompt']!r:.200}"
        )

    def _first_failing(self, rollouts: Rollouts) -> int:
        """Which rollout it fails on when called with one at a time; the first when it only fails on all together."""
        for i, (row, text) in enumerate(zip(rollouts.rows, rollouts.texts, strict=True)):
            try:
                self._function(**self._arguments([row], [text]))
            except Exception:  # noqa: BLE001  any failure of the user's code is what is looked for
                return i
        return 0


_GATHERING = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def _takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in parameters.values())
