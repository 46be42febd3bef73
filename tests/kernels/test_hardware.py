"""Hardware settings: microbatches are limited by tokens or by rows, never by both."""

from types import SimpleNamespace

import pytest
import torch

from alignbench.core.errors import UserError
from alignbench.kernels.hardware import Hardware


@pytest.mark.parametrize(("settings", "rows", "tokens"), [
    ({}, 32, 2048), ({"tokens_per_microbatch": 500}, 32, 500), ({"microbatch_size": 8}, 8, None)])  # fmt: skip
def test_microbatches_are_limited_by_tokens_unless_rows_are_set(settings, rows, tokens):
    hardware = Hardware(device="cpu", **settings)
    assert (hardware.microbatch_rows, hardware.microbatch_tokens) == (rows, tokens)


@pytest.mark.parametrize(("gib", "tokens"), [(24, 8192), (80, 32768)])
def test_microbatches_are_larger_on_a_gpu_and_largest_on_a_large_one(gib, tokens, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=gib << 30))
    assert Hardware().microbatch_tokens == tokens


def test_tokens_and_rows_together_raise():
    with pytest.raises(UserError, match=r"microbatch_size=8 and hardware\.tokens_per_microbatch=500.*set"):
        Hardware(microbatch_size=8, tokens_per_microbatch=500)
