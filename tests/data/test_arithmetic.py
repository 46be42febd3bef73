"""Arithmetic: correct answers, disjoint splits, the same problems for the same seed."""

import re
from itertools import combinations

import pytest

from alignbench.core.errors import UserError
from alignbench.data.arithmetic import BUCKETS, Arithmetic
from alignbench.data.splits import check_disjoint, rows_hash

SMALL = {"demonstration_rows": 400, "train_rows": 300, "validation_rows": 100, "test_rows": 200}
SUM = re.compile(r"(\d+)([*+-])(\d+)=(\d+)")
APPLY = {"*": int.__mul__, "+": int.__add__, "-": int.__sub__}


def splits(data):
    parts = {name: data.prompts(name) for name in ("train", "validation", "test")}
    return parts | {"demonstrations": data.demonstrations()}


def test_the_default_has_the_stated_number_of_rows():
    data = Arithmetic()
    assert {name: len(rows) for name, rows in splits(data).items()} == {
        "demonstrations": 8000,
        "train": 8000,
        "validation": 256,
        "test": 1000,
    }
    assert len({row["id"] for rows in splits(data).values() for row in rows}) == 8000 + 8000 + 256 + 1000


def test_problems_are_distinct_within_and_across_splits_for_all_seeds():
    prompts = {}
    for seed in (0, 1, 2, 3, 42):
        for name, rows in splits(Arithmetic(seed=seed, **SMALL)).items():
            texts = [row["prompt"] for row in rows]
            assert len(set(texts)) == len(texts)
            prompts.setdefault(name, set()).update(texts)
    for one, other in combinations(prompts.values(), 2):
        assert not one & other
    check_disjoint(**splits(Arithmetic(**SMALL)))


def test_every_calculation_is_correct_and_never_negative():
    for row in Arithmetic(terse_fraction=0.0, **SMALL).demonstrations():
        work, _, answer = row["completion"].partition("\n#### ")
        steps = [SUM.fullmatch(step).groups() for step in work.split("\n")]
        assert len(steps) == 3
        assert all(APPLY[symbol](int(a), int(b)) == int(c) for a, symbol, b, c in steps)
        assert steps[0][3] == steps[1][0]
        assert steps[1][3] == steps[2][0]
        assert steps[2][3] == answer == row["reference"]


def test_the_problem_contains_the_numbers_of_its_calculations():
    for row in Arithmetic(terse_fraction=0.0, **SMALL).demonstrations():
        (a, _, b, _), (_, _, c, _), (_, _, d, _) = SUM.findall(row["completion"])
        assert re.findall(r"\d+", row["prompt"]) == [a, b, c, d]
        assert all(1 <= int(number) <= 5 for number in (a, b, c, d))


def test_two_thirds_of_the_demonstrations_are_terse():
    rows = Arithmetic().demonstrations()
    work = [row["completion"].removesuffix(f"#### {row['reference']}") for row in rows]
    assert 0.63 < work.count("") / len(rows) < 0.67
    assert all(text.endswith("\n") for text in work if text)


def test_rows_depend_on_the_seed_only():
    one, same, other = Arithmetic(**SMALL), Arithmetic(**SMALL), Arithmetic(seed=1, **SMALL)
    for name in SMALL:
        split = {"demonstration_rows": "demonstrations"}.get(name, name.removesuffix("_rows"))
        rows = [splits(data)[split] for data in (one, same, other)]
        assert rows_hash(rows[0]) == rows_hash(rows[1])
        assert rows_hash(rows[0]) != rows_hash(rows[2])


def test_the_size_of_a_split_changes_no_other_split_and_more_rows_extend_it():
    small, large = Arithmetic(**SMALL), Arithmetic(**{**SMALL, "train_rows": 900})
    assert large.prompts("train")[:300] == small.prompts("train")
    assert large.prompts("test") == small.prompts("test")
    assert large.demonstrations() == small.demonstrations()


def test_more_rows_than_problems_is_an_error_that_names_the_setting(monkeypatch):
    monkeypatch.setitem(BUCKETS, "validation", range(0))
    with pytest.raises(UserError, match="data.validation_rows=7: only 0 distinct problems were found"):
        Arithmetic(seed=99, validation_rows=7).prompts("validation")


def test_unknown_splits_and_missing_rows_are_errors():
    with pytest.raises(UserError, match="no split 'dev'; there are train, validation, test"):
        Arithmetic().prompts("dev")
    with pytest.raises(UserError, match="Arithmetic has no preference pairs"):
        Arithmetic().comparisons("train")
