"""Quotas computed by hand, and invariants of every stratified sample."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from alignbench.data.stratify import equal_quotas, fit_sizes, proportional_quotas, stratified_sample


def test_proportional_quotas_are_rounded_down_and_at_least_one():
    assert proportional_quotas([75, 20, 5], 10) == [7, 2, 1]  # 7.5, 2, 0.5
    assert proportional_quotas([50, 30, 20], 10) == [5, 3, 2]
    assert proportional_quotas([997, 1, 1, 1], 10) == [
        9,
        1,
        1,
        1,
    ]  # more than 10: stratified_sample cuts the surplus
    assert proportional_quotas([10, 0], 4) == [4, 0]


def test_equal_quotas_differ_by_at_most_one():
    assert equal_quotas([9, 900, 90], 300) == [100, 100, 100]
    assert equal_quotas([9, 900, 90], 26) == [9, 9, 8]


def test_sizes_are_scaled_down_in_proportion():
    wanted = {"train": 9500, "validation": 500, "test": 300}
    assert fit_sizes(wanted, 10_300) == wanted
    # 884 of 10,300 are 815.3, 42.9 and 25.7: two are left after rounding down, for the largest remainders.
    assert fit_sizes(wanted, 884) == {"train": 815, "validation": 43, "test": 26}
    assert fit_sizes(wanted, 2) == {"train": 2, "validation": 0, "test": 0}
    assert fit_sizes({"test": 300}, 173) == {"test": 173}


def pick(items, total, quotas):
    """Items are (stratum, order, priority)."""
    return stratified_sample(
        items, total, quotas, stratum=lambda i: i[0], order=lambda i: i[1], priority=lambda i: i[2]
    )


def test_a_shortfall_is_filled_and_a_surplus_cut_by_priority():
    many = [("a", i, 0.0) for i in range(7)] + [("b", 7, 1.0), ("b", 8, 3.0), ("b", 9, 2.0)]
    # Of 5: a gets 3.5 -> 3, b 1.5 -> 1 (the lowest order, 7); one is missing, and ("b", 8) has the highest priority.
    assert pick(many, 5, proportional_quotas) == [
        ("a", 0, 0.0),
        ("a", 1, 0.0),
        ("a", 2, 0.0),
        ("b", 7, 1.0),
        ("b", 8, 3.0),
    ]
    # Four strata of one quota each for three places: the one of lowest priority is cut.
    small = [("a", 0, 5.0), ("b", 1, 4.0), ("c", 2, 1.0), ("d", 3, 2.0)]
    assert pick(small, 3, proportional_quotas) == [("a", 0, 5.0), ("b", 1, 4.0), ("d", 3, 2.0)]


def test_equal_quotas_of_a_small_stratum_are_filled_from_the_others():
    items = [("creative", 0, 0.0)] + [("factual", i, 0.0) for i in (1, 3, 5)] + [("other", i, 0.0) for i in (2, 4, 6)]
    # Two each; creative has one: the sixth is the lowest chance left, ("factual", 5).
    assert Counter(name for name, *_ in pick(items, 6, equal_quotas)) == {"creative": 1, "factual": 3, "other": 2}


def test_a_sample_of_no_items_is_empty():
    assert pick([], 3, equal_quotas) == []
    assert pick([], 3, proportional_quotas) == []


items = st.lists(
    st.tuples(st.sampled_from("abcde"), st.integers(0, 10**6), st.floats(0, 10)), max_size=60, unique_by=lambda i: i[1]
)


@given(items, st.integers(1, 80), st.sampled_from([proportional_quotas, equal_quotas]), st.randoms())
def test_a_sample_has_the_exact_size_no_repetition_and_ignores_the_order(rows, total, quotas, shuffler):
    sample = pick(rows, total, quotas)
    assert len(sample) == min(total, len(rows))
    assert len(set(sample)) == len(sample)
    assert set(sample) <= set(rows)
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    assert pick(shuffled, total, quotas) == sample


@given(items, st.integers(5, 80))
def test_every_stratum_is_represented_when_the_sample_is_large_enough(rows, total):
    assert {name for name, *_ in pick(rows, total, proportional_quotas)} == {name for name, *_ in rows}


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=4), st.integers(0, 20_000))
def test_fitted_sizes_use_all_available_items_and_never_exceed_the_sizes(sizes, available):
    wanted = {str(i): size for i, size in enumerate(sizes)}
    fitted = fit_sizes(wanted, available)
    assert all(size <= wanted[name] for name, size in fitted.items())
    assert sum(fitted.values()) == min(available, sum(sizes))
