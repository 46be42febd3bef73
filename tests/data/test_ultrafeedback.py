"""UltraFeedback: small files with known results, and the real sample."""

import json
from collections import Counter

import pandas as pd
import pytest
from shared_data import SHARED_DATA, needs_shared

from alignbench.core.errors import UserError
from alignbench.data.preference_pairs import FLAWS
from alignbench.data.splits import check_disjoint, rows_hash
from alignbench.data.ultrafeedback import BINS, LEAKED, UltraFeedback

REAL = SHARED_DATA / "ultrafeedback_sample"
needs_real = needs_shared("ultrafeedback_sample", tests="the splits of the real UltraFeedback sample")
SPLITS = ("train", "validation", "test")
ASKED = ("Write a poem about {}", "What is {}?", "Translate {} into Latin")  # creative, factual, instruction


def row(i, **changes):
    good = {
        "prompt": ASKED[i % 3].format(f"thing {i}"),
        "chosen": f"good {i}",
        "rejected": f"bad {i}",
        "score_chosen": (2.0, 4.0, 6.0, 8.0, 10.0)[i % 5],
        "score_rejected": 1.0,
    }
    return good | changes


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def sizes(data):
    return [len(data.prompts(split)) for split in SPLITS]


def prompts(data, split):
    return {row["prompt"] for row in data.prompts(split)}


def test_the_rows_of_demonstrations_comparisons_and_prompts(tmp_path):
    data = UltraFeedback(
        path=write(tmp_path / "a.jsonl", map(row, range(30))), train_rows=20, validation_rows=5, test_rows=3
    )
    assert sizes(data) == [20, 5, 3]
    first = data.prompts("train")[0]
    i = int(first["completion"].removeprefix("good "))
    score = (2.0, 4.0, 6.0, 8.0, 10.0)[i % 5]
    assert first == {
        "id": "train-0",
        "prompt": ASKED[i % 3].format(f"thing {i}"),
        "completion": f"good {i}",
        "score": score,
        "stratum": ("creative", "factual", "instruction")[i % 3],
    }
    assert data.comparisons("train")[0] == {
        "id": "train-0",
        "prompt": first["prompt"],
        "chosen": f"good {i}",
        "rejected": f"bad {i}",
        "margin": score - 1,
    }
    assert data.demonstrations() == data.prompts("train")
    assert data.quality(first, "an answer") is None
    for split in SPLITS:
        assert [r["id"] for r in data.comparisons(split)] == [r["id"] for r in data.prompts(split)]


def test_training_rows_follow_the_bins_and_test_rows_the_kinds(tmp_path):
    write(tmp_path / "train.jsonl", map(row, range(500)))
    write(tmp_path / "test.jsonl", map(row, range(500, 590)))
    data = UltraFeedback(path=str(tmp_path), train_rows=200, validation_rows=50, test_rows=30)
    notes = data.notes()
    assert [notes[f"train rows of score {name}"] for name in BINS] == [40] * 5
    assert Counter(r["score"] for r in data.prompts("validation")) == dict.fromkeys((2.0, 4.0, 6.0, 8.0, 10.0), 10)
    assert Counter(r["stratum"] for r in data.prompts("test")) == {"creative": 10, "factual": 10, "instruction": 10}
    check_disjoint(**{split: data.prompts(split) for split in SPLITS})


def test_the_edges_of_the_bins(tmp_path):
    scores = [1.5, 2.99, 3, 4.99, 5, 6.99, 7, 8.99, 9, 10]
    rows = [row(i, score_chosen=score) for i, score in enumerate(scores)] + [row(i) for i in (10, 11)]
    (tmp_path / "f").mkdir()
    write(tmp_path / "f" / "train.jsonl", rows[:10] + [row(12, score_chosen=5)])
    write(tmp_path / "f" / "test.jsonl", rows[10:])
    data = UltraFeedback(path=str(tmp_path / "f"), train_rows=10, validation_rows=1)
    seen = Counter(r["score"] for split in ("train", "validation") for r in data.prompts(split))
    assert set(seen) == {float(score) for score in scores}
    notes = data.notes()
    bins = {name: notes[f"train rows of score {name}"] for name in BINS}
    (kept_out,) = data.prompts("validation")
    expected = {"0-3": 2, "3-5": 2, "5-7": 3, "7-9": 2, "9-10": 2}
    assert sum(expected[name] - bins[name] for name in BINS) == 1
    assert all(0 <= expected[name] - bins[name] <= 1 for name in BINS), kept_out


def test_sampling_depends_on_the_seed_and_not_on_the_order_of_the_rows(tmp_path):
    rows = [row(i) for i in range(200)]
    settings = {"train_rows": 60, "validation_rows": 20, "test_rows": 12}
    one = UltraFeedback(path=write(tmp_path / "a.jsonl", rows), **settings)
    same = UltraFeedback(path=write(tmp_path / "b.jsonl", rows[::-1]), **settings)
    other = UltraFeedback(path=str(tmp_path / "a.jsonl"), seed=7, **settings)
    for split in SPLITS:
        assert rows_hash(one.prompts(split)) == rows_hash(same.prompts(split))
        assert prompts(one, split) != prompts(other, split)


def test_invalid_rows_are_dropped_and_counted(tmp_path):
    bad = [
        row(100, chosen=""),
        row(101, rejected="good 101"),
        row(102, score_rejected=6.0),
        row(103, score_rejected=9.0),
        row(104, score_rejected=None),
        row(0, score_chosen=9.5),
    ]
    data = UltraFeedback(
        path=write(tmp_path / "a.jsonl", [*map(row, range(30)), *bad]), train_rows=None, validation_rows=3, test_rows=3
    )
    notes = data.notes()
    assert notes["rows read"] == 36
    assert [notes[flaw] for flaw in FLAWS] == [1, 1, 1, 1, 1, 1]
    assert notes[LEAKED] == 0
    assert (notes["train rows"], notes["train rows asked for"], sizes(data)) == (24, 24, [24, 3, 3])
    answers = {r["completion"]: r["score"] for split in SPLITS for r in data.prompts(split)}
    assert len(answers) == 30
    assert answers["good 0"] == 9.5  # of the two pairs of its prompt the clearer one


def test_a_prompt_of_the_test_file_is_not_trained_on(tmp_path):
    write(tmp_path / "train_clean.jsonl", [row(i) for i in range(40)])
    write(tmp_path / "eval_clean.jsonl", [row(i, prompt=row(i)["prompt"].upper()) for i in range(30, 50)])
    data = UltraFeedback(path=str(tmp_path), train_rows=None, validation_rows=5, test_rows=6)
    assert data.notes()[LEAKED] == 10
    assert sizes(data) == [25, 5, 6]
    check_disjoint(**{split: data.prompts(split) for split in SPLITS})
    assert {r["completion"] for r in data.prompts("test")} <= {f"good {i}" for i in range(30, 50)}


def test_too_few_rows_are_divided_in_proportion_and_counted(tmp_path):
    data = UltraFeedback(path=write(tmp_path / "a.jsonl", map(row, range(103))))
    assert sizes(data) == [95, 5, 3]
    notes = data.notes()
    assert [notes[f"{split} rows asked for"] for split in SPLITS] == [9500, 500, 300]
    write(tmp_path / "train.jsonl", map(row, range(20)))
    write(tmp_path / "test.jsonl", map(row, range(20, 24)))
    (tmp_path / "a.jsonl").unlink()
    assert sizes(UltraFeedback(path=str(tmp_path))) == [19, 1, 4]


def test_the_shortfall_of_a_rare_kind_is_filled_from_the_others(tmp_path):
    write(tmp_path / "train.jsonl", map(row, range(100, 130)))
    write(tmp_path / "test.jsonl", [row(0), *(row(i) for i in range(60) if i % 3)])  # one creative, 20 of each other
    notes = UltraFeedback(path=str(tmp_path), test_rows=30).notes()
    assert notes["test rows of kind creative"] == 1
    assert notes["test rows"] == 30
    assert min(notes["test rows of kind factual"], notes["test rows of kind instruction"]) >= 10


def test_only_the_preference_files_of_the_hub_folder_are_read(tmp_path):
    def talk(text):
        return [{"role": "user", "content": "x"}, {"role": "assistant", "content": text}]

    rows = [row(i, chosen=talk(f"good {i}"), rejected=talk(f"bad {i}")) for i in range(40)]
    for split, part in (("train", rows[:30]), ("test", rows[30:])):
        pd.DataFrame(part).to_parquet(tmp_path / f"{split}_prefs-00000-of-00001.parquet")
        pd.DataFrame({"prompt": ["other"]}).to_parquet(tmp_path / f"{split}_gen-00000-of-00001.parquet")
    data = UltraFeedback(path=str(tmp_path), train_rows=None, validation_rows=5, test_rows=6)
    assert sizes(data) == [25, 5, 6]
    assert all(r["chosen"].startswith("good ") and r["rejected"].startswith("bad ") for r in data.comparisons("train"))


def test_data_that_cannot_be_split_is_an_error(tmp_path):
    path = write(tmp_path / "a.jsonl", [row(0), row(1, score_rejected=4.0)])
    with pytest.raises(UserError, match=r"has 1 valid preference pairs for training: not enough for train, valid"):
        sizes(UltraFeedback(path=path))
    with pytest.raises(UserError, match=r"not enough for train, validation, test.*lower data.validation_rows"):
        sizes(UltraFeedback(path=write(tmp_path / "b.jsonl", map(row, range(50))), train_rows=None))
    (tmp_path / "c").mkdir()
    write(tmp_path / "c" / "train.jsonl", map(row, range(50)))
    write(tmp_path / "c" / "test.jsonl", [row(60, score_rejected=2.0)])
    with pytest.raises(UserError, match=r"and 0 for testing: not enough for"):
        sizes(UltraFeedback(path=str(tmp_path / "c")))
    write(tmp_path / "c" / "more.jsonl", [row(1)])
    with pytest.raises(UserError, match=r"more.jsonl starts with neither train nor test"):
        sizes(UltraFeedback(path=str(tmp_path / "c")))
    for ask in (UltraFeedback().prompts, UltraFeedback().comparisons):
        with pytest.raises(UserError, match="no split 'dev'; there are train, validation, test"):
            ask("dev")


@needs_real
def test_the_real_folder():
    data = UltraFeedback(path=str(REAL))
    assert data.notes() == {
        "rows read": 1200,
        "dropped: prompt is in the test file": 0,
        "dropped: blank prompt or answer": 2,
        "dropped: a score is missing": 0,
        "dropped: both answers identical": 5,
        "dropped: both scores equal": 134,
        "dropped: chosen scored below rejected": 0,
        "dropped: prompt stands there twice": 0,
        "train rows": 840,
        "train rows asked for": 9500,
        "validation rows": 44,
        "validation rows asked for": 500,
        "test rows": 175,
        "test rows asked for": 300,
        "train rows of score 0-3": 0,
        "train rows of score 3-5": 21,
        "train rows of score 5-7": 69,
        "train rows of score 7-9": 640,
        "train rows of score 9-10": 110,
        "test rows of kind factual": 35,
        "test rows of kind instruction": 134,
        "test rows of kind creative": 6,
    }
    assert all(r["margin"] > 0 and r["chosen"] != r["rejected"] for s in SPLITS for r in data.comparisons(s))
    check_disjoint(**{split: data.prompts(split) for split in SPLITS})


@needs_real
def test_the_real_training_file_alone():
    data = UltraFeedback(path=str(REAL / "train_clean.jsonl.gz"))
    assert sizes(data) == [815, 43, 26]
    assert Counter(r["stratum"] for r in data.prompts("test")) == {"factual": 9, "instruction": 8, "creative": 9}
    small = UltraFeedback(path=str(REAL / "train_clean.jsonl.gz"), train_rows=100, validation_rows=20, test_rows=26)
    assert prompts(small, "test") == prompts(data, "test")
