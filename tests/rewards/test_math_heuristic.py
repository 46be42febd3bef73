"""The heuristic by numbers computed by hand, and what it makes of real answers."""

import json
import re
import time

import pytest
import torch
from shared_data import SHARED_DATA, needs_shared

from alignbench.core.errors import UserError
from alignbench.rewards import math_heuristic
from alignbench.rewards.math_heuristic import MathHeuristic

GSM8K = SHARED_DATA / "gsm8k"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (0, 0.1),
        (2, 0.1),
        (3, 0.4),
        (4, 0.4),
        (5, 0.7),
        (6, 0.7),
        (7, 1.0),
        (10, 1.0),
        (15, 1.0),
        (16, 0.7),
        (20, 0.7),
        (21, 0.4),
        (30, 0.4),
        (31, 0.1),
    ],
)
def test_length_is_compared_with_the_ten_words_of_the_reference(words, expected):
    assert math_heuristic.length("a " * words, "b " * 10) == expected
    assert math_heuristic.length("a " * words, "") == 0.5


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("", 0),
        ("P(A|B)", 1),
        ("P(A) = 1", 2),
        ("E[X] ≥ ∑ x", 3),
        (r"\frac{1}{2}", 1),
        ("λ^2", 2),
        ("2**3", 1),
        ("√2", 1),
        (r"P(A) = \frac{1}{2} λ^2 √2", 4),
    ],
)
def test_each_kind_of_notation_counts_once_and_four_are_enough(text, kinds):
    assert math_heuristic.formulas(text) == kinds / 4


@pytest.mark.parametrize(
    "text",
    ["P(", "P(\n)", "(A) P", "P() E[", "x\n a P(b P(c\n P(d) ", "PP(A)", "E[P(]", "E[\n]E[x]", ")P(", "P(\r)", "\nE[]"],
)
def test_a_bracket_must_be_closed_on_its_own_line(text):
    closed = [bool(re.search(kind, text)) for kind in (r"P\(.*?\)", r"E\[.*?\]")]
    assert [kind.search(text) is not None for kind in math_heuristic.FORMULAS[:2]] == closed


@pytest.mark.parametrize("text", ["P(", "E[", "P(\n", "P( E[\n", "a", "a ", "is ", ". ", "="])
def test_a_megabyte_is_scored_in_an_instant(text):
    began = time.process_time()
    megabyte = text * (2**20 // len(text))
    math_heuristic.formulas(megabyte), math_heuristic.concepts(megabyte, "random"), math_heuristic.structure(megabyte)
    assert time.process_time() - began < 1.0


def test_concepts_are_the_long_words_both_have_among_those_either_has():
    reference = "The random variable is being sampled"  # random, variable, sampled
    assert math_heuristic.concepts("A RANDOM, random variable", reference) == pytest.approx(2 / 3)
    assert math_heuristic.concepts("random numbers", reference) == pytest.approx(1 / 4)
    assert math_heuristic.concepts("random", "is a one") == 0.5
    assert math_heuristic.concepts("", reference) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("It is a number", 0.3),
        ("it is defined as one", 0.3),
        ("this another", 0),
        ("the formula", 0.2),
        ("for instance", 0.2),
        ("It is short. Yes. No.", 0),
        ("This is long enough. So this must be.", 0.3),
        ("It is the equation. An example follows here.", 1.0),
    ],
)
def test_structure_is_the_sum_of_its_signs(text, expected):
    assert math_heuristic.structure(text) == pytest.approx(expected)


def test_the_score_is_the_weighted_sum_and_its_parts_add_up(rollouts_for):
    reference = "Conditional probability is P(A|B) = P(A and B) / P(B)"  # 9 words; conditional, probability
    text = "A conditional chance: it is the formula P(A|B) = x"  # 10 words; conditional, chance, formula; two kinds
    scores = MathHeuristic()(rollouts_for([text], [{"id": "r", "prompt": "?", "reference": reference}]))
    components = {name: part.item() for name, part in scores.components.items()}
    assert components == pytest.approx(
        {"length": 0.2, "formulas": 0.3 * 0.5, "concepts": 0.3 / 4, "structure": 0.2 * 0.5}
    )
    assert scores.total.item() == pytest.approx(sum(components.values()))
    assert scores.total.dtype == torch.float32


def test_a_row_without_a_text_reference_is_an_error():
    for row in ({"id": "r7", "prompt": "?"}, {"id": "r7", "prompt": "?", "reference": 5}):
        with pytest.raises(UserError, match="math_heuristic needs the column 'reference'.*r7"):
            MathHeuristic().check([row])


def test_the_content_hash_follows_the_weights():
    assert MathHeuristic().content_hash() == MathHeuristic(length=0.2).content_hash()
    assert MathHeuristic().content_hash() != MathHeuristic(length=0.3).content_hash()


@needs_shared("gsm8k/test.jsonl", tests="reward=math_heuristic on the GSM8K solutions")
def test_even_the_gold_solutions_of_gsm8k_reach_only_part_of_the_scale(rollouts_for):
    answers = [json.loads(line)["answer"] for line in (GSM8K / "test.jsonl").read_text().splitlines()]
    rows = [{"id": i, "prompt": "?", "reference": answer} for i, answer in enumerate(answers)]
    assert MathHeuristic()(rollouts_for(answers, rows)).total.mean().item() == pytest.approx(0.623, abs=0.02)
