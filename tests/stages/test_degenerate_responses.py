"""Empty and repetitive responses, by hand."""

import pytest

from alignbench.stages.degenerate_responses import is_empty, is_repeated


@pytest.mark.parametrize(("answer", "empty"), [("", True), (" \n\t\u00a0", True), ("0", False), (" a", False)])
def test_empty_responses(answer, empty):
    assert is_empty(answer) is empty


@pytest.mark.parametrize(
    ("answer", "repeated"),
    [
        ("", False),
        ("good good good", False),  # three words: no run of four
        ("good good good good good", True),  # one run of four words, said twice: a half was said before
        ("good " * 6, True),
        ("The lake was lovely. The path was dirty.", False),
        ("The lake was lovely. " * 2, False),  # five runs, one of them twice
        ("The lake was lovely. " * 3, True),  # nine runs, four of them new: five of nine were said before
        ("the Lake was lovely. The lake was lovely. THE LAKE WAS LOVELY.", True),
        ("one two three four five six seven eight nine ten", False),
    ],
)
def test_repetitive_responses(answer, repeated):
    assert is_repeated(answer) is repeated
