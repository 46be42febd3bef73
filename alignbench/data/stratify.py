"""How many rows come from each stratum, and which: quotas, shortfalls filled, surplus cut."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")
Quotas = Callable[[Sequence[int], int], list[int]]


def proportional(sizes: Sequence[int], total: int) -> list[int]:
    """Each stratum's share of `total` by its size, rounded down, but one at least where there is a row.

    The shares may add up to less than `total` (rounding) or to more (many small strata).
    """
    everything = sum(sizes)
    return [max(1, total * size // everything) if size else 0 for size in sizes]


def even(sizes: Sequence[int], total: int) -> list[int]:
    """The same share for each stratum whatever its size; what is left over goes to the first ones."""
    each, over = divmod(total, len(sizes))
    return [each + (i < over) for i in range(len(sizes))]


def fit(wanted: Mapping[str, int], available: int) -> dict[str, int]:
    """As many as wanted of each; of too few, all there are in the same proportions, by largest remainder."""
    everything = sum(wanted.values())
    if everything <= available:
        return dict(wanted)
    shares = {name: divmod(available * size, everything) for name, size in wanted.items()}
    missing = available - sum(whole for whole, _ in shares.values())
    nearest = sorted(shares, key=lambda name: -shares[name][1])[:missing]
    return {name: whole + (name in nearest) for name, (whole, _) in shares.items()}


def draw(
    items: Sequence[Item],
    total: int,
    quotas: Quotas,
    *,
    stratum: Callable[[Item], str],
    chance: Callable[[Item], Any],
    worth: Callable[[Item], float] = lambda item: 0.0,
) -> list[Item]:
    """`total` of the items, or all where there are fewer, by quota from each stratum; in the order of `chance`.

    Within a stratum the items of lowest `chance` are taken. A shortfall, because a stratum is smaller than its quota
    or because quotas were rounded down, is filled with the items of most `worth` that are left, whatever their
    stratum; a surplus is cut down to those of most `worth`, but the best of each stratum is cut last. Where `chance`
    tells all items apart, as a hash of their text does, the outcome does not depend on the order they come in.
    """
    strata: dict[str, list[Item]] = {}
    for item in sorted(items, key=chance):
        strata.setdefault(stratum(item), []).append(item)
    groups = [strata[name] for name in sorted(strata)]

    def best_first(item: Item) -> Any:
        return -worth(item), chance(item)

    firsts: list[Item] = []
    others: list[Item] = []
    left: list[Item] = []
    shares = quotas([len(group) for group in groups], total) if groups else []
    for group, quota in zip(groups, shares, strict=True):
        best, *rest = sorted(group[:quota], key=best_first) or [None]
        firsts += [] if best is None else [best]
        others += rest
        left += group[quota:]
    taken = sorted(firsts, key=best_first) + sorted(others, key=best_first) + sorted(left, key=best_first)
    return sorted(taken[:total], key=chance)
