"""Stratified sampling with quotas, where shortfalls of a stratum are filled from the others."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")
Quotas = Callable[[Sequence[int], int], list[int]]


def proportional_quotas(sizes: Sequence[int], total: int) -> list[int]:
    """Quotas in proportion to the sizes of the strata, rounded down, but at least one for a stratum that is not empty.

    The quotas may add up to less than `total` (rounding) or to more (many small strata).
    """
    everything = sum(sizes)
    return [max(1, total * size // everything) if size else 0 for size in sizes]


def equal_quotas(sizes: Sequence[int], total: int) -> list[int]:
    """The same quota for each stratum; the remainder goes to the first ones."""
    each, over = divmod(total, len(sizes))
    return [each + (i < over) for i in range(len(sizes))]


def fit_sizes(sizes: Mapping[str, int], available: int) -> dict[str, int]:
    """The sizes, scaled down in proportion by the largest-remainder method when they exceed `available` in total."""
    everything = sum(sizes.values())
    if everything <= available:
        return dict(sizes)
    shares = {name: divmod(available * size, everything) for name, size in sizes.items()}
    missing = available - sum(whole for whole, _ in shares.values())
    nearest = sorted(shares, key=lambda name: -shares[name][1])[:missing]
    return {name: whole + (name in nearest) for name, (whole, _) in shares.items()}


def stratified_sample(
    items: Sequence[Item],
    total: int,
    quotas: Quotas,
    *,
    stratum: Callable[[Item], str],
    order: Callable[[Item], Any],
    priority: Callable[[Item], float] = lambda item: 0.0,
) -> list[Item]:
    """`total` of the items, or all where there are fewer, by quota from each stratum; sorted by `order`.

    Within a stratum the items of lowest `order` are taken. A shortfall, because a stratum is smaller than its quota or
    because quotas were rounded down, is filled with the remaining items of highest `priority` of any stratum. A surplus
    is cut to the items of highest `priority`, the best item of each stratum last. If `order` is distinct for all items,
    as a hash of their text is, the result does not depend on the order of `items`.
    """
    strata: dict[str, list[Item]] = {}
    for item in sorted(items, key=order):
        strata.setdefault(stratum(item), []).append(item)
    groups = [strata[name] for name in sorted(strata)]

    def best_first(item: Item) -> Any:
        return -priority(item), order(item)

    firsts: list[Item] = []
    others: list[Item] = []
    left: list[Item] = []
    shares = quotas([len(group) for group in groups], total) if groups else []
    for group, quota in zip(groups, shares, strict=True):
        selected = sorted(group[:quota], key=best_first)
        firsts += selected[:1]
        others += selected[1:]
        left += group[quota:]
    taken = sorted(firsts, key=best_first) + sorted(others, key=best_first) + sorted(left, key=best_first)
    return sorted(taken[:total], key=order)
