"""The sha256 of a reward: its settings and the source code that computes the score."""

import hashlib
import inspect
import json
from collections.abc import Callable
from dataclasses import asdict
from types import ModuleType
from typing import Any


def source_hash(scorer: Any, *sources: ModuleType | Callable[..., Any]) -> str:
    """The sha256, as 64 hexadecimal digits, of a dataclass: its name, its fields, its source and that of `sources`."""
    cls = type(scorer)
    parts = {
        "name": f"{cls.__module__}.{cls.__qualname__}",
        "settings": asdict(scorer),
        "sources": [inspect.getsource(source) for source in (cls, *sources)],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
