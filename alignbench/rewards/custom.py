"""A reward computed by a Python function of the user: one number for each completion."""

import inspect
import json
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any, NoReturn

import numpy as np
import torch

from alignbench.core.batches import Rollouts, Row, Scores
from alignbench.core.errors import UserError
from alignbench.rewards.import_function import import_function
from alignbench.rewards.source_hash import source_hash

OWN_ARGUMENTS = ("prompts", "completions", "completion_tokens")
"""Arguments that are computed; a column of such a name is not passed."""
NOT_PASSED = ("prompt", "completion", *OWN_ARGUMENTS)


@dataclass(frozen=True, kw_only=True)
class Custom:
    """A reward function, called as fn(prompts=[...], completions=[...], **columns); it returns n finite numbers.

    Every argument is a keyword argument and a list of length n, one item for each completion of the batch:

    - `prompts` (list[str]): the prompt of each completion, as the dataset makes it, without chat template.
    - `completions` (list[str]): the generated texts, without special tokens.
    - `completion_tokens` (list[int]): the number of tokens of each completion, its end-of-sequence token included.
      Not passed for a file of texts without a column `tokens` (`alignbench check-reward`).
    - `id` (list[str]): the ids of the dataset rows, such as "train-17".
    - `reference` (list[str]): what a completion is compared with, always as text: a number 5 arrives as "5", and a list
      or an object as JSON. Only for datasets that have a reference.
    - every other column of the row under its own name and with the type it has in the file. With data=custom these are
      all columns of the file, those named by a setting such as `data.reference` included; but a column that is itself
      called id, prompt, completion, reference, chosen, rejected or margin is read only where a setting names it.

    The column `prompt` arrives as `prompts`; the column `completion` (the demonstration for SFT) is not passed. A
    function without **kwargs gets only the arguments that it names. The function may return a list, a tuple, a NumPy
    array or a tensor of shape (n,), of int, float or bool.
    """

    function: str
    """Where the function is: "package.module:name" or "path/to/file.py:name"."""

    def __post_init__(self) -> None:
        _ = self._signature  # a wrong name must fail before training starts

    def __call__(self, rollouts: Rollouts) -> Scores:
        """The returned scores, [n] fp32. Raises UserError when the function raises or does not return n numbers."""
        arguments = self._arguments(rollouts.rows, rollouts.texts, _token_counts(rollouts))
        try:
            returned = self._function(**arguments)
        except Exception as error:
            raise UserError(self._describe_exception(error, rollouts)) from error
        total = torch.tensor(self._numbers(returned, rollouts.rows), dtype=torch.float32)
        return Scores(total=total, components={self._name: total})

    def check(self, rows: Sequence[Row]) -> None:
        """Raise UserError, before training starts, when the function requires a column that the rows lack."""
        self._arguments(rows, [""] * len(rows), [0] * len(rows))

    def content_hash(self) -> str:
        """The sha256 of the setting, this class and the file that defines the function."""
        module = inspect.getmodule(inspect.unwrap(self._function))
        return source_hash(self, module or self._function)

    @cached_property
    def _function(self) -> Callable[..., Any]:
        return import_function(self.function)

    @property
    def _name(self) -> str:
        return self.function.rpartition(":")[2]

    @cached_property
    def _signature(self) -> Mapping[str, inspect.Parameter]:
        parameters = inspect.signature(self._function).parameters
        if not _accepts_any_keyword(parameters) and (missing := {"prompts", "completions"} - parameters.keys()):
            raise UserError(
                f"reward.function={self.function}: it must take prompts and completions by name; "
                f"it lacks {', '.join(sorted(missing))}"
            )
        return parameters

    def _arguments(
        self, rows: Sequence[Row], texts: Sequence[str], token_counts: Sequence[int] | None
    ) -> dict[str, list[Any]]:
        own: dict[str, list[Any]] = {"prompts": [row["prompt"] for row in rows], "completions": list(texts)}
        if token_counts is not None:
            own["completion_tokens"] = list(token_counts)
        columns = {name for row in rows for name in row}.difference(NOT_PASSED)
        available = own.keys() | columns
        required = {p.name for p in self._signature.values() if p.default is p.empty and p.kind not in _VARIADIC}
        if missing := required - available:
            raise UserError(
                f"reward.function={self.function} requires {', '.join(sorted(missing))}, which the dataset does not "
                f"have; its columns are: {', '.join(sorted(columns - {'id'})) or 'none'} (a function can also take: "
                f"{', '.join(sorted({'id', *own}))})"
            )
        passed = available if _accepts_any_keyword(self._signature) else available & self._signature.keys()
        return {name: own[name] if name in own else [self._value(row, name) for row in rows] for name in sorted(passed)}

    def _value(self, row: Row, column: str) -> Any:
        if column not in row:
            raise UserError(
                f"reward.function={self.function}: row {row['id']} has no column {column!r}, but other rows have it"
            )
        return _as_text(row[column]) if column == "reference" else row[column]

    def _numbers(self, returned: Any, rows: Sequence[Row]) -> list[float]:
        values = returned
        if isinstance(returned, torch.Tensor | np.ndarray):
            if tuple(returned.shape) != (len(rows),):
                self._refuse(f"shape {tuple(returned.shape)}, expected ({len(rows)},)", returned)
            values = returned.tolist()
        if not isinstance(values, list | tuple):
            self._refuse(f"{type(returned).__name__}, expected a list of {len(rows)} numbers", returned)
        if len(values) != len(rows):
            self._refuse(f"{len(values)} values for {len(rows)} completions", returned)
        return [self._number(value, row, returned) for value, row in zip(values, rows, strict=True)]

    def _number(self, value: Any, row: Row, returned: Any) -> float:
        if isinstance(value, torch.Tensor) and value.ndim == 0:
            value = value.item()
        if not isinstance(value, Real | np.bool_) or not math.isfinite(value):
            self._refuse(f"{value!r:.60} for row {row['id']}, expected a finite number", returned)
        return float(value)

    def _refuse(self, problem: str, returned: Any) -> NoReturn:
        raise UserError(f"reward.function={self.function} returned {problem}. Returned: {_describe(returned)}")

    def _describe_exception(self, error: Exception, rollouts: Rollouts) -> str:
        place = traceback.extract_tb(error.__traceback__)[-1]
        row = rollouts.rows[self._first_failing(rollouts)]
        return (
            f"reward.function={self.function} raised {type(error).__name__}: {error}\n"
            f"at {place.filename}, line {place.lineno}, for row {row['id']} with the prompt {row['prompt']!r:.200}"
        )

    def _first_failing(self, rollouts: Rollouts) -> int:
        """The first rollout for which the function raises when called for it alone; 0 where it never raises."""
        counts = _token_counts(rollouts)
        for i, (row, text) in enumerate(zip(rollouts.rows, rollouts.texts, strict=True)):
            try:
                self._function(**self._arguments([row], [text], None if counts is None else counts[i : i + 1]))
            except Exception:  # noqa: BLE001  the user's function may raise anything
                return i
        return 0


_VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def _accepts_any_keyword(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _token_counts(rollouts: Rollouts) -> list[int] | None:
    """Tokens of each completion; None for texts that were never tokenized."""
    return rollouts.mask.sum(1).tolist() if rollouts.mask.shape[1] else None


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list | tuple) else str(value)


def _describe(value: Any) -> str:
    """Type, length and first item of a value: "a list of length 2 whose first item is 'good' (str)"."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    if isinstance(value, torch.Tensor | np.ndarray):
        shape, items = tuple(value.shape), value.reshape(-1)
        first = f" whose first item is {items[0].item()!r:.60}" if len(items) else ""
        return f"a {kind} of shape {shape} and type {value.dtype}{first}"
    if isinstance(value, list | tuple | dict | set):
        first = f" whose first item is {(item := next(iter(value)))!r:.60} ({type(item).__name__})" if value else ""
        return f"a {kind} of length {len(value)}{first}"
    return f"{value!r:.60} ({kind})"
