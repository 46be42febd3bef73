"""The classical bugs still fit the code, and small changes are what they say; who notices them: docs/mutation.md."""

import ast
from pathlib import Path

import pytest

from validation.mutation.__main__ import COUNT, drawn, nearest
from validation.mutation.classical_bugs import BUGS, Bug
from validation.mutation.operators import changed, changes

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_classical_bug_can_still_be_put_in(bug: Bug) -> None:
    source = (ROOT / bug.file).read_text()
    assert source.count(bug.old) == 1
    ast.parse(source.replace(bug.old, bug.new))
    assert all((ROOT / test.partition("::")[0]).exists() for test in bug.tests)


def test_small_changes_are_one_place_each(tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text(
        '"""1 + 1"""\nLIMIT = 1 + 1\n\ndef f(x: int = 3) -> int:\n    """2 * 2"""\n'
        "    assert x > 0\n    return x + 1 if x < 2 else max(x.min(), -5)\n"
    )
    found = changes(tmp_path, "f.py")
    assert [change.what for change in found] == [
        "`x < 2` became `x <= 2`",
        "`2` became `3`",
        "`x + 1` became `x - 1`",
        "`1` became `2`",
        "`x.min()` became `x.max()`",
        "`-5` became `+5`",
        "`5` became `6`",
    ]
    assert changed(tmp_path, found[2]).endswith("return x - 1 if x < 2 else max(x.min(), -5)")


def test_the_sample_is_the_same_every_time_and_has_tests_nearby() -> None:
    sample = drawn(COUNT)
    assert sample == drawn(COUNT)
    assert len(sample) == COUNT
    assert {Path(change.file).parent.name for change in sample} == {"equations", "algorithms", "statistics"}
    assert all(nearest(change.file) for change in sample)
