"""Valid preference pairs, and the reasons why other rows are dropped."""

import pytest

from alignbench.core.errors import UserError
from alignbench.data import preference_pairs
from alignbench.data.preference_pairs import Pair, select_pairs
from alignbench.data.source import Record

GOOD = {"prompt": "Why?", "chosen": "Because.", "rejected": "No.", "score_chosen": 8.0, "score_rejected": 5.5}


def rows(*changes):
    return [Record(f"row {i}", GOOD | change) for i, change in enumerate(changes)]


def dropped(*changes):
    return {flaw: count for flaw, count in select_pairs(rows(*changes))[1].items() if count}


def test_a_pair_has_the_score_and_the_margin_from_flat_or_nested_columns():
    expected = Pair(prompt="Why?", chosen="Because.", rejected="No.", score=8.0, margin=2.5)
    scores = {"score_chosen": 8, "score_rejected": 5.5}
    nested = Record("row", {"prompt": "Why?", "chosen": "Because.", "rejected": "No.", "metadata": scores})
    for record in (*rows({}), nested):
        found, counts = select_pairs([record])
        assert found == [expected]
        assert dict(counts) == dict.fromkeys(preference_pairs.FLAWS, 0)


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        ({"prompt": " \n"}, preference_pairs.BLANK),
        ({"chosen": ""}, preference_pairs.BLANK),
        ({"rejected": "  "}, preference_pairs.BLANK),
        ({"score_rejected": None}, preference_pairs.UNSCORED),
        ({"score_chosen": float("nan")}, preference_pairs.UNSCORED),
        ({"rejected": " Because.\n"}, preference_pairs.IDENTICAL),
        ({"score_rejected": 8}, preference_pairs.TIED),
        ({"score_rejected": 8.5}, preference_pairs.REVERSED),
    ],
)
def test_a_row_without_a_valid_preference_is_dropped_and_counted(change, flaw):
    assert dropped({"prompt": "Other?"}, change) == {flaw: 1}


def test_of_several_pairs_with_one_prompt_the_largest_margin_is_kept():
    twins = rows({}, {"prompt": " why?  ", "score_rejected": 1.0}, {"prompt": "WHY?", "score_rejected": 3.0})
    for order in (twins, twins[::-1]):
        found, counts = select_pairs(order)
        assert [(pair.prompt, pair.margin) for pair in found] == [(" why?  ", 7.0)]
        assert counts[preference_pairs.REPEATED] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score_chosen": 85}, "row 0: score_chosen is 85, but scores must be from 0 to 10: rescale them"),
        ({"score_chosen": "8"}, "row 0: score_chosen must be a number, found '8'"),
        ({"score_rejected": True}, "row 0: score_rejected must be a number, found True"),
        ({"prompt": ["Why?"]}, "row 0: column 'prompt' must be a text"),
    ],
)
def test_invalid_scores_and_columns_are_errors(change, message):
    with pytest.raises(UserError, match=message):
        select_pairs(rows(change))


def test_a_missing_column_is_named_with_the_available_columns():
    for name in ("prompt", "chosen", "score_rejected"):
        columns = {key: value for key, value in GOOD.items() if key != name}
        with pytest.raises(UserError, match=f"row 7: column '{name}' is missing; the columns are: "):
            select_pairs([Record("row 7", columns)])
