"""Randomness is addressed, not remembered: a generator for each named thing at each step."""

import hashlib

import torch


def address(seed: int, *names: object) -> int:
    """A number below 2**56 that depends on the root seed and on what it is for, and on nothing that ran before."""
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return int.from_bytes(digest[:7], "big")


def derive(seed: int, *names: object) -> torch.Generator:
    """A fresh CPU generator at that address: the same address always draws the same numbers."""
    return torch.Generator().manual_seed(address(seed, *names))


def in_epochs(count: int, step: int, size: int, seed: int, *names: object) -> list[int]:
    """Which `size` of `count` things a step takes: each once in an epoch, every epoch in an order of its own."""
    epochs = sorted({position // count for position in range(step * size, (step + 1) * size)})
    orders = {e: torch.randperm(count, generator=derive(seed, *names, e)).tolist() for e in epochs}
    return [orders[p // count][p % count] for p in range(step * size, (step + 1) * size)]
