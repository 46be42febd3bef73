"""A user's own reward function: what it is given, and what it may not return."""

import sys

import pytest

from alignbench.core.errors import UserError
from alignbench.rewards.custom import Custom

ROWS = tuple(
    {"id": f"r{i}", "prompt": f"p{i}", "completion": "gold text", "reference": str(i), "level": i} for i in range(3)
)
TEXTS = ("a", "bb", "ccc")


@pytest.fixture
def written(tmp_path):
    """Write a reward file and return the knob that names its function `fn`."""

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
    assert columns == {"reference": ["0", "1", "2"], "level": [0, 1, 2]}
    return [len(c) + level for c, level in zip(completions, columns["level"])]
"""
    scores = score(written, rollouts_for, source)
    assert scores.total.tolist() == [1, 3, 5]
    assert scores.components["fn"].tolist() == [1, 3, 5]


def test_a_function_without_kwargs_gets_the_columns_it_names(written, rollouts_for):
    source = "def fn(prompts, completions, level, bonus=0.5):\n    return [value + bonus for value in level]"
    assert score(written, rollouts_for, source).total.tolist() == [0.5, 1.5, 2.5]


def test_a_required_column_that_is_not_there_is_named_with_those_that_are(written, rollouts_for):
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
def test_every_usual_kind_of_number_is_taken(written, rollouts_for, returns):
    scores = score(written, rollouts_for, f"def fn(prompts, completions, **columns): return {returns}")
    assert scores.total.tolist() == [1, 0, 1]


def test_an_exception_is_told_with_its_place_and_the_first_prompt_that_causes_it(written, rollouts_for):
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
        ("textwrap:no_such", "no 'no_such' there; functions found: .*dedent, .*wrap"),
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
