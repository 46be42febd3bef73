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
