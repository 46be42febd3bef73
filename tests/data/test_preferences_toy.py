"""Generated preferences: disjoint splits, and labels that follow the true quality."""

from itertools import combinations

import pytest

from alignbench.core.errors import UserError
from alignbench.data.preferences_toy import PreferencesToy
from alignbench.data.splits import SPLITS, check_disjoint, rows_hash

SMALL = {
    "demonstration_rows": 400,
    "comparison_rows": 300,
    "held_out_comparison_rows": 200,
    "train_rows": 300,
    "validation_rows": 100,
    "test_rows": 200,
}


def every_table(data):
    tables = {f"prompts {split}": data.prompts(split) for split in SPLITS}
    tables |= {f"comparisons {split}": data.comparisons(split) for split in SPLITS}
    return tables | {"demonstrations": data.demonstrations()}


def qualities(data, pair):
    return data.quality(pair, pair["chosen"]), data.quality(pair, pair["rejected"])


def test_the_default_has_the_stated_number_of_rows():
    tables = every_table(PreferencesToy())
    assert {name: len(rows) for name, rows in tables.items()} == {
        "demonstrations": 6000,
        "prompts train": 1500,
        "prompts validation": 256,
        "prompts test": 500,
        "comparisons train": 5000,
        "comparisons validation": 2000,
        "comparisons test": 2000,
    }
    rows = [row for table in tables.values() for row in table]
    assert len({row["id"] for row in rows}) == len(rows)


def test_no_prompt_is_in_two_splits_for_all_seeds():
    prompts = {}
    for seed in (0, 1, 42):
        for name, rows in every_table(PreferencesToy(seed=seed, **SMALL)).items():
            prompts.setdefault(name.rpartition(" ")[2], set()).update(row["prompt"] for row in rows)
    assert set(prompts) == {*SPLITS, "demonstrations"}
    for one, other in combinations(prompts.values(), 2):
        assert not one & other


def test_prompts_are_distinct():
    data = PreferencesToy()
    check_disjoint(**{split: data.prompts(split) for split in SPLITS})
    for split in SPLITS:
        prompts = [row["prompt"] for row in data.prompts(split)]
        assert len(set(prompts)) == len(prompts)


def test_the_prompt_names_the_topic_of_the_row():
    for rows in every_table(PreferencesToy(**SMALL)).values():
        assert all(row["prompt"].endswith(f" the {row['topic']}.\n") for row in rows)
        assert {row["topic"] for row in rows} == {row["topic"] for row in PreferencesToy().prompts("test")}


def test_held_out_pairs_prefer_the_better_review_by_their_margin():
    data = PreferencesToy(margin=1.0, **SMALL)
    for pair in [*data.comparisons("validation"), *data.comparisons("test")]:
        better, worse = qualities(data, pair)
        assert better - worse == pair["margin"] >= 1.0


def test_training_labels_have_the_stated_noise_and_the_true_margin():
    data = PreferencesToy(comparison_rows=4000, label_noise=0.1)
    apart = [(*qualities(data, pair), pair["margin"]) for pair in data.comparisons("train")]
    assert all(abs(chosen - rejected) == margin >= 0.5 for chosen, rejected, margin in apart)
    assert 0.085 < sum(chosen < rejected for chosen, rejected, _ in apart) / len(apart) < 0.115


def test_label_noise_changes_only_labels():
    noisy, clean = PreferencesToy(label_noise=1.0, **SMALL), PreferencesToy(label_noise=0.0, **SMALL)
    for one, other in zip(noisy.comparisons("train"), clean.comparisons("train"), strict=True):
        assert (one["chosen"], one["rejected"]) == (other["rejected"], other["chosen"])
    assert noisy.comparisons("test") == clean.comparisons("test")


def test_pairs_include_empty_and_long_reviews():
    pairs = PreferencesToy().comparisons("train")
    answers = [answer for pair in pairs for answer in (pair["chosen"], pair["rejected"])]
    assert answers.count("") > 100
    assert sum(answer.count(".") > 4 for answer in answers) > 500


def test_rows_depend_on_the_seed_only():
    one, same, other = (every_table(PreferencesToy(seed=seed, **SMALL)) for seed in (0, 0, 1))
    assert {name: rows_hash(rows) for name, rows in one.items()} == {n: rows_hash(r) for n, r in same.items()}
    assert all(rows_hash(one[name]) != rows_hash(other[name]) for name in one)


def test_the_size_of_a_table_changes_no_other_table_and_more_rows_extend_it():
    small, large = PreferencesToy(**SMALL), PreferencesToy(**{**SMALL, "comparison_rows": 900, "train_rows": 900})
    assert large.comparisons("train")[:300] == small.comparisons("train")
    assert large.prompts("train")[:300] == small.prompts("train")
    assert large.prompts("test") == small.prompts("test")
    assert large.demonstrations() == small.demonstrations()


def test_unknown_splits_and_missing_rows_are_errors():
    with pytest.raises(UserError, match="no split 'dev'; there are train, validation, test"):
        PreferencesToy().prompts("dev")
    with pytest.raises(UserError, match="no split 'dev'"):
        PreferencesToy().comparisons("dev")
    with pytest.raises(UserError, match=r"data\.validation_rows=9000: the split has \d+ prompts"):
        PreferencesToy(validation_rows=9000).prompts("validation")
