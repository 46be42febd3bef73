"""A custom reward function: its arguments, and the errors for what it must not return."""

import re
import sys
from dataclasses import replace

import pytest
import torch

from alignbench.core.errors import UserError
from alignbench.rewards.custom import Custom

ROWS = tuple(
    {"id": f"r{i}", "prompt": f"p{i}", "completion": "gold text", "reference": str(i), "level": i} for i in range(3)
)
TEXTS = ("a", "bb", "ccc")


@pytest.fixture
def written(tmp_path):
    """Write a reward file and return the value of reward.function."""

    def write(source, name="fn"):
        path = tmp_path / "mine.py"
        path.write_text(source)
        return f"{path}:{name}"

    return write


def score(written, rollouts_for, source):
    return Custom(function=written(source))(rollouts_for(TEXTS, ROWS))


def test_prompts_completions_and_columns_arrive_as_lists(written, rollouts_for):
    source = """
def fn(prompts, completions, **columns):
    assert prompts == ["p0", "p1", "p2"]
    assert columns == {
        "reference": ["0", "1", "2"],
        "level": [0, 1, 2],
        "id": ["r0", "r1", "r2"],
        "completion_tokens": [3, 3, 3],
    }
    return [len(c) + level for c, level in zip(completions, columns["level"])]
"""
    scores = score(written, rollouts_for, source)
    assert scores.total.tolist() == [1, 3, 5]
    assert scores.components["fn"].tolist() == [1, 3, 5]


def test_a_function_without_kwargs_gets_the_columns_it_names(written, rollouts_for):
    source = "def fn(prompts, completions, level, bonus=0.5):\n    return [value + bonus for value in level]"
    assert score(written, rollouts_for, source).total.tolist() == [0.5, 1.5, 2.5]


def test_a_missing_required_column_is_named_with_the_available_ones(written, rollouts_for):
    custom = Custom(function=written("def fn(prompts, completions, difficulty, **columns): return [0.0] * 3"))
    with pytest.raises(UserError, match=r"requires difficulty, .*its columns are: level, reference"):
        custom(rollouts_for(TEXTS, ROWS))
    with pytest.raises(UserError, match="requires difficulty"):
        custom.check(ROWS)


def test_a_column_that_only_some_rows_have_is_an_error(written, rollouts_for):
    custom = Custom(function=written("def fn(prompts, completions, level): return [0.0] * 2"))
    with pytest.raises(UserError, match="row bare has no column 'level'"):
        custom(rollouts_for(TEXTS[:2], [ROWS[0], {"id": "bare", "prompt": "p"}]))


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        ("[1.0, 2.0]", "returned 2 values for 3 completions"),
        ("[1.0] * 4", "returned 4 values for 3 completions"),
        ("[1.0]", "returned 1 values for 3 completions"),
        ("[]", "returned 0 values for 3 completions"),
        ("[1.0, None, 2.0]", "returned None for row r1, expected a finite number"),
        ("[1.0, 2.0, float('nan')]", "returned nan for row r2"),
        ("[float('inf'), 2.0, 3.0]", "returned inf for row r0"),
        ("['1', '2', '3']", "returned '1' for row r0"),
        ("[[1.0], [2.0], [3.0]]", r"returned \[1.0\] for row r0"),
        ("None", "returned NoneType, expected a list of 3 numbers"),
        ("1.0", "returned float, expected a list of 3 numbers"),
        ("'abc'", "returned str, expected a list of 3 numbers"),
        ("(x for x in [1, 2, 3])", "returned generator, expected a list"),
        ("__import__('torch').tensor([1.0])", r"returned shape \(1,\), expected \(3,\)"),
        ("__import__('torch').ones(3, 1)", r"returned shape \(3, 1\), expected \(3,\)"),
        ("__import__('numpy').ones((1, 3))", r"returned shape \(1, 3\), expected \(3,\)"),
        ("__import__('numpy').array([1.0, 2.0, float('nan')])", "returned nan for row r2"),
    ],
)
def test_anything_but_one_finite_number_each_is_an_error(written, rollouts_for, returns, message):
    with pytest.raises(UserError, match=message):
        score(written, rollouts_for, f"def fn(prompts, completions, **columns): return {returns}")


def test_a_wrong_result_is_described_by_type_length_and_first_value(written, rollouts_for):
    examples = {
        "['good', 'bad', 'bad']": "Returned: a list of length 3 whose first item is 'good' (str)",
        "{'score': [1.0]}": "returned dict, .* Returned: a dict of length 1 whose first item is 'score' (str)",
        "[]": "Returned: a list of length 0",
        "0.5": "Returned: 0.5 (float)",
        "__import__('torch').ones(3, 1)": "a torch.Tensor of shape (3, 1) and type torch.float32 whose first item is",
        "__import__('numpy').array(list('abc'))": "a numpy.ndarray of shape (3,) and type <U1 whose first item is 'a'",
    }
    for returns, message in examples.items():
        pattern = re.escape(message).replace(r"\.\*", ".*")
        with pytest.raises(UserError, match=pattern):
            score(written, rollouts_for, f"def fn(prompts, completions, **columns): return {returns}")


def test_the_reference_arrives_as_text_and_other_columns_as_they_are(written, rollouts_for):
    source = """
def fn(prompts, completions, reference, answer):
    assert reference == ["5", '["a", "\u00e9"]', "2.5"], reference
    assert answer == [5, ["a", "\u00e9"], 2.5], answer
    return [0.0] * 3
"""
    answers = (5, ["a", "\u00e9"], 2.5)
    rows = [{"id": f"r{i}", "prompt": "?", "reference": answer, "answer": answer} for i, answer in enumerate(answers)]
    Custom(function=written(source))(rollouts_for(TEXTS, rows))


def test_token_counts_are_those_of_the_completions_and_are_not_passed_for_plain_texts(written, rollouts_for):
    custom = Custom(function=written("def fn(prompts, completions, completion_tokens): return completion_tokens"))
    rollouts = rollouts_for(TEXTS, ROWS)
    mask = torch.arange(3) < torch.tensor([[1], [0], [3]])
    assert custom(replace(rollouts, mask=mask)).total.tolist() == [1, 0, 3]
    with pytest.raises(UserError, match="requires completion_tokens, which the dataset does not have"):
        custom(
            replace(rollouts, responses=torch.ones(3, 0, dtype=torch.long), mask=mask[:, :0], logprobs=torch.ones(3, 0))
        )


def test_a_column_named_like_an_argument_does_not_replace_it(written, rollouts_for):
    rows = [{**row, "prompts": "column", "completions": "column", "completion_tokens": "column"} for row in ROWS]
    source = """
def fn(prompts, completions, completion_tokens, **columns):
    assert (prompts, completions, completion_tokens) == (["p0", "p1", "p2"], ["a", "bb", "ccc"], [3, 3, 3])
    assert sorted(columns) == ["id", "level", "reference"]
    return [0.0] * 3
"""
    Custom(function=written(source))(rollouts_for(TEXTS, rows))


@pytest.mark.parametrize(
    "returns",
    [
        "[1, 0, 1]",
        "[True, False, True]",
        "(1.0, 0.0, 1.0)",
        "__import__('numpy').array([1, 0, 1])",
        "__import__('torch').tensor([1.0, 0.0, 1.0])",
        "[__import__('torch').tensor(x) for x in (1.0, 0.0, 1.0)]",
        "[__import__('numpy').float32(x) for x in (1, 0, 1)]",
    ],
)
def test_every_usual_kind_of_number_is_accepted(written, rollouts_for, returns):
    scores = score(written, rollouts_for, f"def fn(prompts, completions, **columns): return {returns}")
    assert scores.total.tolist() == [1, 0, 1]


def test_an_exception_is_reported_with_its_place_and_the_first_prompt_that_causes_it(written, rollouts_for):
    source = "def fn(prompts, completions, **columns):\n    return [1 / (len(c) - 2) for c in completions]"
    with pytest.raises(UserError) as caught:
        score(written, rollouts_for, source)
    message = str(caught.value)
    assert "mine.py:fn raised ZeroDivisionError: " in message
    assert "mine.py, line 2" in message
    assert "row r1 with the prompt 'p1'" in message
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nocolon", 'expected "package.module:name"'),
        (":fn", 'expected "package.module:name"'),
        ("no_such_package.rewards:fn", "no module 'no_such_package'"),
        ("json.no_such_module:fn", "no module 'json.no_such_module'"),
        ("no/such/file.py:fn", "no such file: /.*no/such/file.py"),
        ("textwrap:no_such", "no 'no_such' in textwrap; functions found: .*dedent, .*wrap"),
        ("json:JSONDecoder", "'JSONDecoder' is not a plain function but type"),
        ("textwrap:dedent", "must take prompts and completions by name; it lacks completions, prompts"),
    ],
)
def test_a_wrong_name_fails_when_the_reward_is_made(function, message):
    with pytest.raises(UserError, match=message):
        Custom(function=function)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_thing", "importing it raised ModuleNotFoundError: No module named 'no_such_thing'"),
        ("def fn(:", "importing it raised SyntaxError"),
        ("1 / 0", "importing it raised ZeroDivisionError"),
        ("def other(prompts, completions): return []", "functions found: other"),
        ("async def fn(prompts, completions): return []", "is not a plain function but an async one"),
    ],
)
def test_a_broken_file_fails_when_the_reward_is_made(written, source, message):
    with pytest.raises(UserError, match=message):
        Custom(function=written(source))


def test_a_module_is_found_from_the_working_directory(tmp_path, monkeypatch, rollouts_for):
    package = tmp_path / "my_rewards_of_test"
    package.mkdir()
    (package / "lengths.py").write_text("def fn(prompts, completions): return [len(c) for c in completions]")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    assert Custom(function="my_rewards_of_test.lengths:fn")(rollouts_for(TEXTS, ROWS)).total.tolist() == [1, 2, 3]


def test_the_content_hash_follows_the_source_of_the_function(written):
    source = "def helper(c): return {}\ndef fn(prompts, completions): return [helper(c) for c in completions]"
    one = Custom(function=written(source.format("1.0"))).content_hash()
    same = Custom(function=written(source.format("1.0"))).content_hash()
    other = Custom(function=written(source.format("2.0"))).content_hash()
    assert one == same
    assert one != other
    assert len(bytes.fromhex(one)) == 32
