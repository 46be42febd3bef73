"""The number extractor: examples, and every row of GSM8K."""

import gzip
import json
from decimal import Decimal

import pytest
from shared_data import SHARED_DATA, needs_shared

from alignbench.rewards.extract import flexible, gold, number, same, strict

GSM8K = SHARED_DATA / "gsm8k"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#### 15", "15"),
        ("5*4=20, 20-5=15\n#### 15", "15"),
        ("####15", "15"),
        ("####   15  \n", "15"),
        ("#### 1,080", "1080"),
        ("#### 109,200,000", "109200000"),
        ("#### 1,00,000", "100000"),
        ("#### 1\u00a0000", "1000"),
        ("#### $1,080.50.", "1080.5"),
        ("#### -3", "-3"),
        ("#### \u22123", "-3"),
        ("#### - 3", "-3"),
        ("#### -$3", "-3"),
        ("#### $-3", "-3"),
        ("#### +3", "3"),
        ("#### €5", "5"),
        ("#### 5 €", "5"),
        ("#### USD 5", "5"),
        ("#### 5 dollars", "5"),
        ("#### 5kg", "5"),
        ("#### 20%", "20"),
        ("#### 0.5", "0.5"),
        ("#### .5", "0.5"),
        ("#### 15.", "15"),
        ("#### 15.00", "15"),
        ("#### 007", "7"),
        ("#### 15, and that is all", "15"),
        ("#### 3\n#### 4", "4"),
        ("#### 4\nwas it 5?", "4"),
        ("#### 1/2", None),
        ("#### 5*4=20", None),
        ("#### 20 - 5", None),
        ("#### 10-12", None),
        ("#### 3:30", None),
        ("#### 1e3", None),
        ("#### 1,23", None),
        ("#### 1 000", None),
        ("#### 12.5.3", None),
        ("#### fifteen", None),
        ("#### x=5", None),
        ("####", None),
        ("#### 15 ####", None),
        ("####\n15", None),
        ("### 15", None),
        ("15", None),
        ("", None),
    ],
)
def test_strict_reads_the_number_after_the_last_mark(text, expected):
    assert strict(text) == (None if expected is None else Decimal(expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#### 15", "15"),
        ("#### 15\nor 16", "15"),
        ("#### **15**", "15"),
        ("The answer is 15.", "15"),
        ("5*4=20, 20-5=15", "15"),
        ("costs $1,080.", "1080"),
        ("it is -5", "-5"),
        ("it is (\u22125)", "-5"),
        ("it is -$5", "-5"),
        ("20 -5", "5"),
        ("20-5", "5"),
        ("(4+4) -5", "5"),
        ("pages 10\u201312", "12"),
        ("x-5", "5"),
        ("= -3", "-3"),
        ("half is .5", "0.5"),
        ("-5", "-5"),
        ("none", None),
        ("", None),
    ],
)
def test_flexible_falls_back_to_the_last_number(text, expected):
    assert flexible(text) == (None if expected is None else Decimal(expected))


@pytest.mark.parametrize(
    ("reference", "expected"),
    [("15", "15"), (15, "15"), (1.5, "1.5"), ("1,080", "1080"), ("4*4=16\n#### 16", "16"), ("no", None), (None, None)],
)
def test_gold_reads_a_number_its_text_or_a_solution(reference, expected):
    assert gold(reference) == (None if expected is None else Decimal(expected))


def test_numbers_are_compared_by_value_and_none_equals_nothing():
    assert same(number("15"), number("15.00"))
    assert not same(number("15"), number("-15"))
    assert not same(None, None)
    assert not same(number("15"), None)


def test_a_very_long_number_is_exact():
    digits = "9" * 5000
    assert not same(strict(f"#### {digits}"), strict(f"#### {digits[:-1]}8"))


@needs_shared("gsm8k", tests="the number extractor on all GSM8K references")
@pytest.mark.parametrize(("file", "count"), [("train.jsonl.gz", 7473), ("test.jsonl", 1319)])
def test_every_gsm8k_reference_is_extracted(file, count):
    path = GSM8K / file
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    answers = [json.loads(line)["answer"] for line in text.splitlines()]
    assert len(answers) == count
    for answer in answers:
        simple = answer.split("####")[1].strip().replace(",", "")
        assert strict(answer) == Decimal(simple)
        assert same(strict(answer), gold(simple))
        assert same(flexible(answer.replace("####", "so it is")), strict(answer))
