"""Splits and fingerprints."""

import pytest

from alignbench.core.errors import UserError
from alignbench.data.splits import carve, check_disjoint, fingerprint

TEXTS = [f"question {i}" for i in range(50)]


def test_what_is_carved_out_depends_on_the_texts_and_not_on_their_order():
    rest, carved = carve(TEXTS, 10, "validation", str)
    again_rest, again = carve(TEXTS[::-1], 10, "validation", str)
    assert len(carved) == 10
    assert sorted(rest + carved) == sorted(TEXTS)
    assert set(again) == set(carved)
    assert set(again_rest) == set(rest)
    assert set(carve(TEXTS, 10, "test", str)[1]) != set(carved)


def test_twins_stay_together():
    rest, carved = carve([*TEXTS, *[text.upper() + " " for text in TEXTS]], 10, "validation", str)
    assert len(carved) == 20
    assert not {text.strip().lower() for text in carved} & {text.strip().lower() for text in rest}


def test_a_shared_prompt_is_told_with_both_rows():
    train = [{"id": "t0", "prompt": "How many  apples?"}]
    test = [{"id": "e0", "prompt": "how many?"}, {"id": "e1", "prompt": "how many apples?\n"}]
    check_disjoint(train=train, test=test[:1])
    with pytest.raises(UserError, match="test row e1 has the same prompt as train row t0: 'how many apples"):
        check_disjoint(train=train, test=test)


def test_the_fingerprint_sees_every_value_and_the_order_of_rows_but_not_of_columns():
    rows = [{"id": "a", "prompt": "x"}, {"id": "b", "prompt": "y"}]
    assert fingerprint(rows) == fingerprint([{"prompt": "x", "id": "a"}, rows[1]])
    assert fingerprint(rows) != fingerprint(rows[::-1])
    assert fingerprint(rows) != fingerprint([rows[0], {"id": "b", "prompt": "z"}])
    assert fingerprint([]) != fingerprint(rows[:1])
