r"""reward=boxed: equivalent and different answers, and the time limit of a comparison."""

import gzip
import json
import random
import threading
import time

import pytest
from shared_data import SHARED_DATA, needs_shared

from alignbench.core.errors import UserError
from alignbench.data.boxed import extract_boxed
from alignbench.rewards import math_equivalence
from alignbench.rewards.boxed import Boxed

MATH = SHARED_DATA / "math" / "test.jsonl.gz"


def score(rollouts_for, response, reference, **settings):
    rows = [{"id": "r", "prompt": "?", "reference": reference}]
    return Boxed(**settings)(rollouts_for([response], rows)).total.item()


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"\frac{1}{8}", r"\frac{1}{8}"),
        (r"\frac{1}{8}", r"\dfrac18"),
        (r"\frac{1}{8}", "0.125"),
        (r"\frac{1}{8}", "1/8"),
        ("x+1", "1+x"),
        ("1000", "1,000"),
        ("[2,5)", "[2, 5)"),
        (r"\sqrt{8}", r"2\sqrt{2}"),
        ("12", r"12^\circ"),
        (r"\text{Tuesday}", "Tuesday"),
        ("10", r"10\%"),
        ("5", "x = 5"),
        ("145.0", "145"),
    ],
)
def test_equivalent_answers_are_correct(rollouts_for, gold, answer):
    assert score(rollouts_for, rf"so \boxed{{{answer}}}.", gold) == 1
    assert score(rollouts_for, rf"so \boxed{{{answer}}}.", rf"it is $\boxed{{{gold}}}$") == 1


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"\frac{1}{8}", r"\frac{1}{4}"),  # the same up to the first closing brace
        (r"\sqrt{2}", r"\sqrt{3}"),
        ("[2,5)", "(2,5)"),
        ("3", "-3"),
        ("2", "2 or 3"),
        ("2", "$2$ or $3$"),
        ("2", "1=2=3"),
        ("2", r"\{2,3\}"),
        ("2", r"2 \text{ or } 3"),
        ("2", ""),
        ("2", "?"),
        ("2", "x"),
        (r"\text{Tuesday}", "Monday"),
    ],
)
def test_a_different_answer_is_incorrect(rollouts_for, gold, answer):
    assert score(rollouts_for, rf"so \boxed{{{answer}}}.", gold) == 0


def test_a_response_without_an_answer_is_incorrect(rollouts_for):
    for response in ("", "it is 2", r"\boxed{}", r"\boxed{2", r"\boxed"):
        assert score(rollouts_for, response, "2") == 0
    assert score(rollouts_for, "so it is 2", "2", mode="flexible") == 1
    assert score(rollouts_for, r"\boxed{3}, not 2", "2", mode="flexible") == 0


def test_both_modes_are_logged(rollouts_for):
    rows = [{"id": i, "prompt": "?", "reference": "2"} for i in range(3)]
    scores = Boxed()(rollouts_for([r"\boxed{2}", "it is 2", "it is 3"], rows))
    assert scores.components["correct_strict"].tolist() == [1, 0, 0]
    assert scores.components["correct_flexible"].tolist() == [1, 1, 0]


@pytest.mark.parametrize("row", [{}, {"reference": None}, {"reference": r"it is \boxed{}"}, {"reference": " "}])
def test_a_row_without_an_answer_is_an_error(row):
    with pytest.raises(UserError, match="reward=boxed.*row r7"):
        Boxed().check([{"id": "r7", **row}])


def test_a_comparison_that_takes_too_long_is_incorrect_and_the_next_one_works(caplog):
    verifier = math_equivalence.Verifier()
    assert verifier.same("4", "2+2", 60)
    started = time.monotonic()
    assert not verifier.same("4", "9^{9^{9^{9}}}!", 0.3)
    assert not verifier.same("4", "9^{9^{9}}", 0.3)
    assert time.monotonic() - started < 60  # twice a start, which imports sympy on what may be a busy machine
    assert verifier.same("4", "2+2", 60)
    verifier.stop()
    assert "the answer counts as incorrect" in caplog.text


def test_malformed_text_is_incorrect_and_does_not_end_the_process():
    verifier = math_equivalence.get_verifier()
    for text in (r"\frac{1}{", "{{{{", r"\begin{pmatrix}1", "\\" * 50, "(" * 100, "\x00", "é" * 100, "1" * 5000):
        assert not verifier.same("4", text, 60), text[:20]
    assert verifier.same("4", "2+2", 60)


def test_answers_are_compared_from_any_thread():
    found = []
    threads = [
        threading.Thread(target=lambda i=i: found.append(math_equivalence.get_verifier().same(str(i), f"{i}.0", 60)))
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


def test_the_content_hash_depends_on_the_settings():
    assert Boxed().content_hash() == Boxed(mode="strict").content_hash() != Boxed(mode="flexible").content_hash()


@needs_shared("math/test.jsonl.gz", tests="reward=boxed on all MATH solutions")
def test_every_math_reference_is_extracted_and_equals_itself():
    solutions = [json.loads(line)["solution"] for line in gzip.decompress(MATH.read_bytes()).splitlines()]
    golds = [extract_boxed(solution) for solution in solutions]
    assert len(golds) == 5000
    assert all(golds)
    sample = random.Random(0).sample(golds, 300)
    same = [math_equivalence.compare(gold, gold) for gold in sample]
    assert sum(same) >= 0.99 * len(sample), [gold for gold, found in zip(sample, same, strict=True) if not found]
