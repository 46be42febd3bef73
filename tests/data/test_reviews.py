"""The quality of reviews, computed by hand, and the frequency of each fault in generated reviews."""

import random

import pytest

from alignbench.data import reviews
from alignbench.data.reviews import quality, write_review

FOUR = "The water was lovely. The shore was clean. The path was calm. The view was fine."


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The water was lovely.", 1.0),
        ("The water was dirty.", -1.0),
        ("The coffee was lovely.", -0.5),
        ("The coffee was dirty.", -0.5),
        ("The water was lovely. The shore was dirty.", 1.0 - 1.0),
        ("The water was lovely. The shore was lovely.", 1.0 + 0.5),
        ("The water was dirty. The shore was dirty.", -1.0 - 1.5),
        ("The coffee was lovely. The shore was lovely.", -0.5 + 0.5),
        ("The water was lovely. The water was clean.", 1.0 - 1.0),
        ("The coffee was lovely. The coffee was clean.", -0.5 - 1.0),
        (FOUR, 4.0),
        (f"{FOUR} The boat was great.", 4.0 - 1.0),
        (f"{FOUR} The boat was great. The pier was superb.", 4.0 - 2.0),
        ("The water was lovely. " * 4, 1.0 - 3.0),
        ("", -2.0),
        (" \n", -2.0),
    ],
)
def test_the_quality_of_reviews_of_one_topic(answer, expected):
    assert quality("lake", answer) == expected


@pytest.mark.parametrize(
    "answer",
    [
        "The water lovely.",
        "water was lovely.",
        "The was lovely.",
        "The water was.",
        "The water was lovely",
        "The water",
        "The the water was lovely.",
        "The water was wet.",
        "The moon was lovely.",
        "THE WATER WAS LOVELY.",
        ".",
    ],
)
def test_a_malformed_sentence_costs_a_point(answer):
    assert quality("lake", answer) == -1.0
    assert quality("lake", f"The shore was fine. {answer}") == 0.0


def test_a_malformed_sentence_has_neither_aspect_nor_adjective():
    assert quality("lake", "The water. The water was lovely.") == -1.0 + 1.0
    assert quality("lake", "The moon was lovely. The water was lovely.") == -1.0 + 1.0


def test_the_same_review_has_lower_quality_for_another_topic():
    assert [quality(topic, FOUR) for topic in reviews.TOPICS] == [4.0] + [-2.0] * 7


def test_no_aspect_belongs_to_two_topics_and_no_adjective_is_both_good_and_bad():
    assert len(set(reviews.ASPECTS)) == len(reviews.ASPECTS) == 48
    assert len({*reviews.GOOD, *reviews.BAD}) == 16


def test_generated_reviews_have_the_stated_fault_rates():
    rng = random.Random(0)
    texts = [write_review(rng, "lake") for _ in range(4000)]
    parts = [part for text in texts for part in reviews.PART.findall(text)]
    found = [reviews.SENTENCE.fullmatch(part.strip()) for part in parts]
    sentences = [match.groups() for match in found if match]
    assert 0.01 < texts.count("") / len(texts) < 0.03
    assert 0.03 < 1 - len(sentences) / len(parts) < 0.05
    assert 0.38 < sum(word in reviews.BAD for _, word in sentences) / len(sentences) < 0.42
    assert 0.06 < sum(aspect not in reviews.TOPICS["lake"] for aspect, _ in sentences) / len(sentences) < 0.10
    assert {len(reviews.PART.findall(text)) for text in texts} == set(reviews.SENTENCES)
