"""Large blocks of memory go back to the system when they are freed, whatever stands between them."""

import json
import os
import platform
import subprocess
import sys

import pytest

from alignbench.kernels.malloc import settle

FREED = """
import json
import torch
from alignbench.kernels.malloc import settle
from alignbench.kernels.hardware import resident_memory
torch.set_num_threads(1)
assert settle()
torch.ones(30 << 18).sum()  # 30 MiB, freed: by itself malloc mostly takes such blocks from the heap from now on
before, large, small = resident_memory(), [], []
for _ in range(20):
    large.append(torch.ones(6 << 18))
    small.append(torch.ones(64))
large.clear()
print(json.dumps((resident_memory() - before) >> 20))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library has no mallopt")
def test_what_is_freed_between_small_blocks_is_given_back():
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True, env=env)
    assert json.loads(done.stdout) < 10


def test_who_has_set_it_himself_is_left_alone(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert not settle()
