"""Datasets outside the repository that some tests read; without them a marker says what is not tested."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
"""Not part of the repository: a folder beside the checkout with gsm8k/, math/, svamp/ and ultrafeedback_sample/."""


def needs_shared(*names: str, tests: str) -> pytest.MarkDecorator:
    """Skip a test unless all these files or folders exist under SHARED_DATA; the reason names them and what is skipped.

    `tests` is what the test would have checked, such as "the number extractor on all GSM8K references".
    """
    missing = [str(SHARED_DATA / name) for name in names if not (SHARED_DATA / name).exists()]
    return pytest.mark.skipif(bool(missing), reason=f"not found: {', '.join(missing)}; not tested: {tests}")
