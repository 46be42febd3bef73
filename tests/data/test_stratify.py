"""Quotas by hand, and what every draw keeps whatever the items."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from alignbench.data.stratify import draw, even, fit, proportional


def test_shares_are_rounded_down_and_one_at_least():
    assert proportional([75, 20, 5], 10) == [7, 2, 1]  # 7.5, 2, 0.5
    assert proportional([50, 30, 20], 10) == [5, 3, 2]
    assert proportional([997, 1, 1, 1], 10) == [9, 1, 1, 1]  # more than 10: the surplus is the draw's business
    assert proportional([10, 0], 4) == [4, 0]


def test_even_shares_differ_by_one_at_most():
    assert even([9, 900, 90], 300) == [100, 100, 100]
    assert even([9, 900, 90], 26) == [9, 9, 8]


def test_what_is_wanted_shrinks_in_proportion():
    wanted = {"train": 9500, "validation": 500, "test": 300}
    assert fit(wanted, 10_300) == wanted
    # 884 of 10,300 are 815.3, 42.9 and 25.7: two are left after rounding down, for the largest remainders.
    assert fit(wanted, 884) == {"train": 815, "validation": 43, "test": 26}
    assert fit(wanted, 2) == {"train": 2, "validation": 0, "test": 0}
    assert fit({"test": 300}, 173) == {"test": 173}


def pick(items, total, quotas):
    """Items are (stratum, chance, worth)."""
    return draw(items, total, quotas, stratum=lambda i: i[0], chance=lambda i: i[1], worth=lambda i: i[2])


def test_a_shortfall_is_filled_with_the_most_worth_and_a_surplus_cut_to_it():
    many = [("a", i, 0.0) for i in range(7)] + [("b", 7, 1.0), ("b", 8, 3.0), ("b", 9, 2.0)]
    # Of 5: a gets 3.5 -> 3, b 1.5 -> 1 (the lowest chance, 7); one is missing, and ("b", 8) is worth most.
    assert pick(many, 5, proportional) == [("a", 0, 0.0), ("a", 1, 0.0), ("a", 2, 0.0), ("b", 7, 1.0), ("b", 8, 3.0)]
    # Four strata of one quota each for three places: the one of least worth goes.
    small = [("a", 0, 5.0), ("b", 1, 4.0), ("c", 2, 1.0), ("d", 3, 2.0)]
    assert pick(small, 3, proportional) == [("a", 0, 5.0), ("b", 1, 4.0), ("d", 3, 2.0)]


def test_even_quotas_that_a_stratum_cannot_meet_are_met_by_the_others():
    items = [("creative", 0, 0.0)] + [("factual", i, 0.0) for i in (1, 3, 5)] + [("other", i, 0.0) for i in (2, 4, 6)]
    # Two each; creative has one: the sixth is the lowest chance left, ("factual", 5).
    assert Counter(name for name, *_ in pick(items, 6, even)) == {"creative": 1, "factual": 3, "other": 2}


def test_nothing_comes_of_nothing():
    assert pick([], 3, even) == []
    assert pick([], 3, proportional) == []


items = st.lists(
    st.tuples(st.sampled_from("abcde"), st.integers(0, 10**6), st.floats(0, 10)), max_size=60, unique_by=lambda i: i[1]
)


@given(items, st.integers(1, 80), st.sampled_from([proportional, even]), st.randoms())
def test_a_draw_is_exact_without_repetition_and_blind_to_the_order(rows, total, quotas, shuffler):
    drawn = pick(rows, total, quotas)
    assert len(drawn) == min(total, len(rows))
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) <= set(rows)
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    assert pick(shuffled, total, quotas) == drawn


@given(items, st.integers(5, 80))
def test_no_stratum_is_lost_where_there_is_room_for_all(rows, total):
    assert {name for name, *_ in pick(rows, total, proportional)} == {name for name, *_ in rows}


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=4), st.integers(0, 20_000))
def test_a_fit_uses_all_there_is_and_no_more_than_wanted(sizes, available):
    wanted = {str(i): size for i, size in enumerate(sizes)}
    fitted = fit(wanted, available)
    assert all(size <= wanted[name] for name, size in fitted.items())
    assert sum(fitted.values()) == min(available, sum(sizes))
