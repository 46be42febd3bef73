"""Splits and the hash of rows."""

import pytest

from alignbench.core.errors import UserError
from alignbench.data.splits import check_disjoint, rows_hash, split_off

TEXTS = [f"question {i}" for i in range(50)]


def test_split_off_depends_on_the_texts_and_not_on_their_order():
    rest, carved = split_off(TEXTS, 10, "validation", str)
    again_rest, again = split_off(TEXTS[::-1], 10, "validation", str)
    assert len(carved) == 10
    assert sorted(rest + carved) == sorted(TEXTS)
    assert set(again) == set(carved)
    assert set(again_rest) == set(rest)
    assert set(split_off(TEXTS, 10, "test", str)[1]) != set(carved)


def test_items_of_equal_text_stay_together():
    rest, carved = split_off([*TEXTS, *[text.upper() + " " for text in TEXTS]], 10, "validation", str)
    assert len(carved) == 20
    assert not {text.strip().lower() for text in carved} & {text.strip().lower() for text in rest}


def test_a_shared_prompt_is_an_error_that_names_both_rows():
    train = [{"id": "t0", "prompt": "How many  apples?"}]
    test = [{"id": "e0", "prompt": "how many?"}, {"id": "e1", "prompt": "how many apples?\n"}]
    check_disjoint(train=train, test=test[:1])
    with pytest.raises(UserError, match="test row e1 has the same prompt as train row t0: 'how many apples"):
        check_disjoint(train=train, test=test)


def test_the_rows_hash_depends_on_values_and_row_order_but_not_on_column_order():
    rows = [{"id": "a", "prompt": "x"}, {"id": "b", "prompt": "y"}]
    assert rows_hash(rows) == rows_hash([{"prompt": "x", "id": "a"}, rows[1]])
    assert rows_hash(rows) != rows_hash(rows[::-1])
    assert rows_hash(rows) != rows_hash([rows[0], {"id": "b", "prompt": "z"}])
    assert rows_hash([]) != rows_hash(rows[:1])
