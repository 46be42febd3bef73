"""Signs of steps, and lengths, by hand."""

import pytest

from alignbench.core.errors import UserError
from alignbench.rewards.brevity import Brevity
from alignbench.rewards.steps import Steps

WORK = "5 * 4 = 20 eggs\n20-5=$15"


@pytest.mark.parametrize(
    ("text", "calculations", "any_sign"),
    [
        (WORK, 1, 1),
        ("5 * 4 = 20", 0, 1),
        ("x = 5", 0, 1),
        ("First, guess.", 0, 1),
        ("Step 1", 0, 1),
        ("let's see", 0, 1),
        ("it is 5", 0, 0),
        ("", 0, 0),
    ],
)
def test_steps_are_lines_with_a_calculation_or_any_sign_of_them(rollouts_for, text, calculations, any_sign):
    rollouts = rollouts_for([text], [{"id": "r", "prompt": "?"}])
    assert Steps()(rollouts).total.tolist() == [calculations]
    assert Steps(rule="any_sign")(rollouts).total.tolist() == [any_sign]
    assert Steps(lines=1)(rollouts).total.tolist() == [float(" = 20" in text)]


@pytest.mark.parametrize(
    ("characters", "expected"), [(0, 0), (50, 0.5), (100, 1), (1000, 1), (1100, 0.9), (3000, -1.0)]
)
def test_brevity_is_lost_in_proportion(rollouts_for, characters, expected):
    rollouts = rollouts_for(["x" * characters], [{"id": "r", "prompt": "?"}])
    assert Brevity()(rollouts).total.tolist() == [pytest.approx(expected)]


def test_an_empty_range_of_lengths_is_an_error():
    with pytest.raises(UserError, match="longest=50 is less than shortest=100"):
        Brevity(longest=50)


@pytest.mark.parametrize(("one", "other"), [(Steps(), Steps(lines=3)), (Brevity(), Brevity(longest=500))])
def test_the_content_hash_follows_the_knobs(one, other):
    assert one.content_hash() == type(one)().content_hash() != other.content_hash()
