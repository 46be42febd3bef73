"""Exact match: both rates, and what it needs of a row."""

import pytest
import torch

from alignbench.core.errors import UserError
from alignbench.rewards.exact_match import ExactMatch

TEXTS = ("#### 15", "it is 15", "#### 16", "nothing", "5*3=15\n#### 15.00")
ROWS = tuple({"id": f"r{i}", "prompt": "?", "reference": "15"} for i in range(5))


def test_strict_and_flexible_are_both_logged_and_one_is_the_score(rollouts_for):
    rollouts = rollouts_for(TEXTS, ROWS)
    strict, flexible = ExactMatch()(rollouts), ExactMatch(mode="flexible")(rollouts)
    assert strict.total.tolist() == [1, 0, 0, 0, 1]
    assert flexible.total.tolist() == [1, 1, 0, 0, 1]
    assert strict.total.dtype == torch.float32
    for scores in (strict, flexible):
        assert scores.components["correct_strict"].tolist() == [1, 0, 0, 0, 1]
        assert scores.components["correct_flexible"].tolist() == [1, 1, 0, 0, 1]


def test_a_missing_reference_names_the_reward_and_the_column(rollouts_for):
    rows = [{"id": "r7", "prompt": "?", "label": "15"}]
    with pytest.raises(UserError, match=r"exact_match needs the column 'reference'.*r7.*label"):
        ExactMatch()(rollouts_for(["#### 15"], rows))
    with pytest.raises(UserError, match="exact_match needs the column 'reference'"):
        ExactMatch().check(rows)


def test_a_reference_that_is_no_number_names_the_row():
    with pytest.raises(UserError, match="row r7 is not a number: 'about ten'"):
        ExactMatch().check([{"id": "r7", "prompt": "?", "reference": "about ten"}])


def test_the_content_hash_depends_on_the_settings_only():
    assert ExactMatch().content_hash() == ExactMatch(mode="strict").content_hash()
    assert ExactMatch().content_hash() != ExactMatch(mode="flexible").content_hash()
