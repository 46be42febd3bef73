"""Splits that never share a prompt, and the hash of a set of rows."""

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
    """The text without differences in case and white space; rows with equal normalized prompts count as duplicates."""
    return " ".join(text.casefold().split())


def split_off(
    items: Sequence[Item], count: int, purpose: str, text: Callable[[Item], str]
) -> tuple[list[Item], list[Item]]:
    """(rest, selected): `count` distinct texts are selected by a hash of the text and `purpose`.

    The selection does not depend on the order of the items, and items of equal normalized text stay together.
    """
    keys = sorted({normalized(text(item)) for item in items}, key=lambda key: address(0, purpose, key))
    chosen = set(keys[:count])
    rest = [item for item in items if normalized(text(item)) not in chosen]
    return rest, [item for item in items if normalized(text(item)) in chosen]


def check_disjoint(**splits: Sequence[Row]) -> None:
    """Raise UserError naming a prompt that is in two splits."""
    seen: dict[str, tuple[str, Row]] = {}
    for name, rows in splits.items():
        for row in rows:
            other, twin = seen.setdefault(normalized(row["prompt"]), (name, row))
            if other != name:
                raise UserError(
                    f"{name} row {row['id']} has the same prompt as {other} row {twin['id']}: {row['prompt'][:80]!r}. "
                    "Training and test data must not overlap: remove the row from one of the files."
                )


def rows_hash(rows: Iterable[Row]) -> str:
    """The sha256 of the rows in order: equal if and only if every column of every row is equal."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(dict(row), sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n")
    return digest.hexdigest()
