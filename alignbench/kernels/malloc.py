"""How C's malloc treats large blocks: each is the system's again when it is freed, so no small one can keep it."""

import ctypes
import os

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""What mallopt(3) of glibc calls M_MMAP_THRESHOLD and M_TRIM_THRESHOLD."""
LARGE, KEPT = 4 << 20, 256 << 20
"""Blocks from this size on are the system's own; so many bytes that are free at the end of the heap are kept for what
comes next, since to give them back and ask for them again takes longer than to use them."""


def settle() -> bool:
    """Fix both; False where the C library has no such thing, or the environment has fixed them already.

    By itself glibc raises them as it sees larger blocks freed. Then gradients stand between what lives as long as the
    process, such as oneDNN's kernels, and a model of 30 M weights takes a third more memory in one run than in another.
    """
    if {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"} & os.environ.keys():
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGE) and mallopt(TRIM_THRESHOLD, KEPT))
