"""Python API: compose a config, run it, load runs and studies as DataFrames, compare methods."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignbench.api import Comparison, Run, Study, UserError, compose, load_run, load_study, run

__version__ = "0.1.0"
__all__ = ["Comparison", "Run", "Study", "UserError", "compose", "load_run", "load_study", "run"]


def __getattr__(name: str) -> Any:
    """Import the API on first use, so that `import alignbench` itself imports nothing."""
    if name in __all__:
        return getattr(import_module("alignbench.api"), name)
    raise AttributeError(f"module 'alignbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
