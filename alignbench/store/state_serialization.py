"""Serializes a run state as tensors and JSON in a safetensors file; loading it cannot execute code."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

PLAIN = (str, bool, int, float, type(None))
PLAN = "plan"
Found = dict[tuple[Any, ...], tuple[str, Tensor]]
"""The tensors of a payload and their names in the file, by their place in memory."""


def pack(payload: dict[str, Any], path: Path) -> None:
    """Write tensors, numbers, strings and None, in dicts, lists and tuples, as one safetensors file.

    A tensor that occurs twice is written once. Raises TypeError for anything else.
    """
    found: Found = {}
    plan = json.dumps(_plan(payload, found))
    named = {name: _unshared(tensor.detach().cpu()) for name, tensor in found.values()}
    save_file(named, path, metadata={PLAN: plan})


def unpack(path: Path) -> dict[str, Any]:
    """The packed payload, tensors on the CPU."""
    with safe_open(path, "pt") as file:
        plan = json.loads(file.metadata()[PLAN])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    restored = _restored(plan, tensors)
    assert isinstance(restored, dict)
    return restored


def _plan(value: Any, found: Found) -> Any:
    """The JSON of a value: plain values unchanged, everything else as {kind: content}."""
    if isinstance(value, Tensor):
        place = (value.data_ptr(), value.dtype, value.shape, value.stride()) if value.numel() else (len(found),)
        name, _ = found.setdefault(place, (str(len(found)), value))
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_plan(name, found), _plan(part, found)] for name, part in value.items()]}
    if type(value) in (list, tuple):
        return {type(value).__name__: [_plan(part, found) for part in value]}
    if type(value) not in PLAIN:
        raise TypeError(f"a checkpoint holds tensors, numbers and strings, not {type(value).__name__}")
    return value


def _unshared(tensor: Tensor) -> Tensor:
    """The tensor in memory of its own, as safetensors requires."""
    is_part = tensor.untyped_storage().nbytes() != tensor.nbytes
    return tensor.clone(memory_format=torch.contiguous_format) if is_part else tensor.contiguous()


def _restored(plan: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(plan, dict):
        return plan
    ((kind, content),) = plan.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {_restored(name, tensors): _restored(part, tensors) for name, part in content}
    parts = [_restored(part, tensors) for part in content]
    return tuple(parts) if kind == "tuple" else parts
