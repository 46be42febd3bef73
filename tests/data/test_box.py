r"""The content of the last \boxed{} of a text, with braces of any kind."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared_data import SHARED_DATA, needs_shared

from alignbench.data.boxed import extract_boxed

REAL = SHARED_DATA / "math" / "test.jsonl.gz"


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"so it is $\boxed{5}$.", "5"),
        (r"\boxed{\frac{1}{8}}", r"\frac{1}{8}"),
        (r"first \boxed{1}, then \boxed{2} and no more", "2"),
        (r"\boxed{x = \boxed{7} + 1}", "7"),
        (r"\boxed{ \{1, 2\} }", r"\{1, 2\}"),
        (r"the half-open \boxed{\{x}", r"\{x"),
        (r"\boxed{a \\} and }", r"a \\"),
        (r"\fbox{east}", "east"),
        (r"\boxed {12}", "12"),
        (r"$\boxed 12$", "12"),
        (r"\(\boxed 3.5\).", "3.5"),
        (r"it is \boxed 5.", "5"),
        (r"$\boxed \frac12$", r"\frac12"),
        ("\\boxed{two\nlines}", "two\nlines"),
        (r"\boxed{}", ""),
        ("no box: {5}", None),
        (r"\boxed", None),
        (r"\boxed{1 + {2}", None),
        (r"\boxed{1} or, cut, \boxed{2", None),
        (r"\boxedsteps{5}", None),
        ("", None),
    ],
)
def test_the_last_box(text: str, content: str | None) -> None:
    assert extract_boxed(text) == content


PLAIN = st.text(st.characters(exclude_characters="\\{}", exclude_categories=["Cs"]))
BALANCED = st.recursive(
    PLAIN | st.sampled_from([r"\{", r"\}", "\\\\"]),
    lambda inner: st.lists(inner, max_size=4).map("".join) | inner.map("{{{}}}".format),
)


@given(before=st.text(), content=BALANCED, after=st.text().filter(lambda text: "\\" not in text))
def test_balanced_content_is_extracted_unchanged(before: str, content: str, after: str) -> None:
    assert extract_boxed(f"{before} \\boxed{{{content}}}{after}") == content.strip()


@given(content=BALANCED)
def test_a_box_that_is_not_closed_is_no_answer(content: str) -> None:
    assert extract_boxed(f"\\boxed{{1}} \\boxed{{{content}") is None


@needs_shared("math/test.jsonl.gz", tests="the extraction of the boxed answer from all MATH solutions")
def test_every_real_solution_has_a_box_with_balanced_braces() -> None:
    with gzip.open(REAL, "rt") as file:
        answers = [extract_boxed(json.loads(line)["solution"]) for line in file]
    assert len(answers) == 5000
    assert all(answers)
    assert all(answer.count("{") == answer.count("}") for answer in answers if answer)
    assert sum("}" in answer for answer in answers if answer) > 1000  # those that an unbalanced rule would cut
