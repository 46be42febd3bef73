"""The classical bugs match the code, and mutations are as described; docs/mutation.md lists the test for each bug."""

import ast
from pathlib import Path

import pytest

from validation.mutation.__main__ import COUNT, closest_tests, sample_mutations
from validation.mutation.classical_bugs import BUGS, Bug
from validation.mutation.operators import mutated, mutations

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_classical_bug_can_be_inserted(bug: Bug) -> None:
    source = (ROOT / bug.file).read_text()
    buggy = ast.parse(bug.inserted(source))
    assert ast.dump(buggy) != ast.dump(ast.parse(source))
    for test in bug.tests:
        path, _, name = test.partition("::")
        assert (ROOT / path).exists()
        assert not name or f"def {name.partition('[')[0]}(" in (ROOT / path).read_text()


def test_bug_is_found_for_any_line_breaks() -> None:
    bug = Bug("half", "f.py", "f(x, y)", "f(x, y) / 2", ())
    assert bug.inserted("z = f(\n    x,\n    y,\n)\n") == "z = f(x, y) / 2\n"
    for source in ("z = g(x, y)\n", "f(x, y) + f(x, y)\n", "half(x, y)\n"):
        with pytest.raises(ValueError, match="not once"):
            bug.inserted(source)


def test_mutation_changes_one_node(tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text(
        '"""1 + 1"""\nLIMIT = 1 + 1\n\ndef f(x: int = 3) -> int:\n    """2 * 2"""\n'
        "    assert x > 0\n    return x + 1 if x < 2 else max(x.min(), -5)\n"
    )
    found = mutations(tmp_path, "f.py")
    assert [mutation.description for mutation in found] == [
        "`x < 2` became `x <= 2`",
        "`2` became `3`",
        "`x + 1` became `x - 1`",
        "`1` became `2`",
        "`x.min()` became `x.max()`",
        "`-5` became `+5`",
        "`5` became `6`",
    ]
    assert mutated(tmp_path, found[2]).endswith("return x - 1 if x < 2 else max(x.min(), -5)")


def test_sample_of_mutations_is_reproducible_and_has_tests() -> None:
    sample = sample_mutations(COUNT)
    assert sample == sample_mutations(COUNT)
    assert len(sample) == COUNT
    assert {Path(mutation.file).parent.name for mutation in sample} == {"equations", "algorithms", "statistics"}
    assert all(closest_tests(mutation.file) for mutation in sample)
