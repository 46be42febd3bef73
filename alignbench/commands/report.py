"""Writes the comparison report of a study; the same as `python -m analysis`."""

from collections.abc import Sequence
from importlib import import_module

from alignbench.runs.analysis_process import package


def main(words: Sequence[str] | None = None) -> int:
    """Write the report. Returns the exit code of the analysis."""
    analysis = import_module(f"{package()}.__main__")
    return int(analysis.main(words))
