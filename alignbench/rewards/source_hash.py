"""The sha256 by which a reward is known: its knobs and the source it is made of."""

import hashlib
import inspect
import json
from collections.abc import Callable
from dataclasses import asdict
from types import ModuleType
from typing import Any


def fingerprint(scorer: Any, *sources: ModuleType | Callable) -> str:
    """The sha256 of a scorer's name, its knobs (the fields of its dataclass), its own source and that of `sources`."""
    kind = type(scorer)
    parts = {
        "name": f"{kind.__module__}.{kind.__qualname__}",
        "knobs": asdict(scorer),
        "sources": [inspect.getsource(source) for source in (kind, *sources)],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
