"""Splits that never share a row, and the fingerprint by which a set of rows is known."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeVar

from alignbench.core.batches import Row
from alignbench.core.errors import UserError
from alignbench.core.seeds import address

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

Item = TypeVar("Item")


def normalized(text: str) -> str:
    """The text by which two rows count as the same: case and white space put aside."""
    return " ".join(text.casefold().split())


def carve(items: Sequence[Item], count: int, purpose: str, text: Callable[[Item], str]) -> tuple[list, list]:
    """(rest, carved): about `count` items set aside, chosen by a hash of their text and `purpose` alone.

    The choice does not depend on the order of the items, and items of the same text stay together.
    """
    keys = sorted({normalized(text(item)) for item in items}, key=lambda key: address(0, purpose, key))
    chosen = set(keys[:count])
    rest = [item for item in items if normalized(text(item)) not in chosen]
    return rest, [item for item in items if normalized(text(item)) in chosen]


def check_disjoint(**splits: Sequence[Row]) -> None:
    """Raise UserError naming a prompt that stands in two splits."""
    seen: dict[str, tuple[str, Row]] = {}
    for name, rows in splits.items():
        for row in rows:
            other, twin = seen.setdefault(normalized(row["prompt"]), (name, row))
            if other != name:
                raise UserError(
                    f"{name} row {row['id']} has the same prompt as {other} row {twin['id']}: {row['prompt'][:80]!r}. "
                    "A model may not be tested on what it was trained on: remove the row from one of the files."
                )


def fingerprint(rows: Iterable[Row]) -> str:
    """The sha256 of the rows, in order: equal exactly when every column of every row is equal."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(dict(row), sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n")
    return digest.hexdigest()
