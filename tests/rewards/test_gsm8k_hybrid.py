"""The hybrid reward: the score of each part, correct above incorrect answers, and the published weights."""

import itertools

import pytest
import torch

from alignbench.core.errors import UserError
from alignbench.rewards.gsm8k_hybrid import GSM8KHybrid, count_terms

FULL = "First 5*4=20 and 20-5=15, so 3+12=15; then 30/2 is the answer.\n#### 15"  # every part at its most
BARE = "15"


def one(rollouts_for, text, reference="15", **settings):
    return GSM8KHybrid(**settings)(rollouts_for([text], [{"id": "r", "prompt": "?", "reference": reference}]))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            FULL,
            {
                "correctness": 0.6,
                "length": 0.05,
                "indicators": 0.1,
                "steps": 0.1,
                "format": 0.1,
                "number": 0.025,
                "calculation": 0.025,
            },
        ),
        (BARE, {"correctness": 0.6, "number": 0.025}),
        ("16", {"number": 0.025}),
        ("", {}),
        ("Final answer: 15", {"correctness": 0.6, "indicators": 0.02, "format": 0.05, "number": 0.025}),
        ("also sold, somewhere: a well-known address", {}),
    ],
)
def test_each_part_adds_its_score(rollouts_for, text, parts):
    scores = one(rollouts_for, text)
    found = {name: value.item() for name, value in scores.components.items() if not name.startswith("correct_")}
    assert found == pytest.approx({**dict.fromkeys(found, 0.0), **parts})
    assert scores.total.item() == pytest.approx(sum(parts.values()))
    assert scores.total.dtype == torch.float32


def test_every_correct_answer_scores_above_every_other(rollouts_for):
    styles = ["", FULL.partition("\n")[0] + " ", "x" * 60 + " ", "solve " * 9]
    ends = ["15", "#### 15", "#### 16", "16", "Final Answer: 16"]
    texts = [style + end for style, end in itertools.product(styles, ends)]
    rollouts = rollouts_for(texts, [{"id": i, "prompt": "?", "reference": "15"} for i in range(len(texts))])
    scores = GSM8KHybrid()(rollouts)
    right = scores.components["correct_flexible"].bool()
    assert 0 < right.sum() < len(texts)
    assert scores.total[right].min() >= 0.6
    assert scores.total[~right].max() <= 0.4 + 1e-6
    assert scores.total.max() <= 1 + 1e-6
    assert one(rollouts_for, FULL).total.item() == pytest.approx(1.0)
    assert one(rollouts_for, FULL, reference="16").total.item() == pytest.approx(0.4)


def test_the_published_weights_hide_whether_the_answer_is_correct(rollouts_for, option):
    def score(name, text, reference="15", *words):
        return option(name, *words)(rollouts_for([text], [{"id": "r", "prompt": "?", "reference": reference}]))

    for name, most in (("gsm8k_hybrid_readme", 1.95), ("gsm8k_hybrid_source", 1.75)):
        words = (name, FULL, "15", "reward.noise_std=0")
        parts = {part: value.item() for part, value in score(*words).components.items()}
        assert sum(value for part, value in parts.items() if "correct_" not in part) == pytest.approx(most)
        assert score(*words).total == score(name, FULL, "16", "reward.noise_std=0").total == 1
    assert score("gsm8k_hybrid_source", FULL).components["noise"] != 0
    none, wrong = (score("gsm8k_hybrid_readme", text).components["correctness"].item() for text in ("none", "16"))
    assert none > wrong  # a missing answer scores above an incorrect one


def test_the_mode_decides_which_answers_are_incorrect_or_missing(rollouts_for):
    scores_of_other_answers = {"wrong": -1.0, "no_answer": -2.0}
    table = {
        ("15", "flexible"): 0.6,
        ("15", "strict"): -2.0,
        ("#### 16", "strict"): -1.0,
        ("16", "flexible"): -1.0,
        ("none", "flexible"): -2.0,
        ("#### 1,500", "strict"): -1.0,
    }
    for (text, mode), expected in table.items():
        scores = one(rollouts_for, text, mode=mode, **scores_of_other_answers)
        assert scores.components["correctness"].item() == pytest.approx(expected), (text, mode)
    assert one(rollouts_for, "#### -1,500", reference="-1500").components["correctness"].item() == pytest.approx(0.6)


def test_terms_are_matched_as_words_or_substrings():
    text = "He also sold some goods at his address; a well-known one"
    assert count_terms(("so", "add", "-"), text, "word") == 0
    assert count_terms(("so", "add", "-"), text, "substring") == 3
    assert count_terms(("so", "add", "-", "=", "*"), "So add 3 - 2, x = $5, 2*-3", "word") == 5
    assert count_terms(("-", "/"), "-5 and/or 10", "word") == 0
    assert count_terms(("=",), "<<5*3=15>>15", "word") == 1


def test_noise_is_the_same_for_the_same_response_to_the_same_row(rollouts_for):
    rows = [{"id": f"r{i}", "prompt": "?", "reference": "15"} for i in range(4000)]
    quiet, noisy = (GSM8KHybrid(noise_std=std)(rollouts_for(["15"] * 4000, rows)).total for std in (0.0, 0.1))
    added = noisy - quiet
    assert abs(added.mean()) < 0.006
    assert abs(added.std() - 0.1) < 0.006
    torch.testing.assert_close(GSM8KHybrid(noise_std=0.1)(rollouts_for(["15"] * 4, rows[:4])).total, noisy[:4])
    other = GSM8KHybrid(noise_std=0.1, seed=1)(rollouts_for(["15"] * 4, rows[:4])).total
    assert not torch.isclose(other, noisy[:4]).any()


def test_a_row_that_cannot_be_scored_is_an_error_that_names_it():
    with pytest.raises(UserError, match="reward=gsm8k_hybrid needs the column 'reference'"):
        GSM8KHybrid().check([{"id": "r", "prompt": "?"}])
    with pytest.raises(UserError, match="reward=gsm8k_hybrid: the column 'reference' of row r is not a number"):
        GSM8KHybrid().check([{"id": "r", "prompt": "?", "reference": "ten"}])


def test_the_content_hash_depends_on_every_setting():
    changes = ({}, {"wrong": 0.1}, {"clip": True}, {"seed": 1})
    assert len({GSM8KHybrid(**change).content_hash() for change in changes}) == 4
