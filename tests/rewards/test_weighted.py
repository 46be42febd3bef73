"""The weighted sum of rewards: its components, the logged accuracy, and the reward model of a part."""

import pytest
import torch

from alignbench.core.errors import UserError
from alignbench.core.protocols import Calibration, LearnedScorer, Scorer, learned
from alignbench.rewards.bradley_terry import BradleyTerry
from alignbench.rewards.custom import Custom
from alignbench.rewards.exact_match import ExactMatch
from alignbench.rewards.steps import Steps
from alignbench.rewards.weighted import Part, Weighted

TEXTS = ("#### 15", "it is 15", "#### 16")
ROWS = tuple({"id": f"r{i}", "prompt": "?", "reference": "15"} for i in range(3))


class Model:
    """A reward model whose score is the number of response tokens."""

    calibration = Calibration(temperature=2.0, mean=0.5, std=4.0)
    device = torch.device("cpu")

    def __call__(self, batch):
        return batch.mask.sum(1).float()

    def weights_checksum(self):
        return "weights"


@pytest.fixture
def written(tmp_path):
    (tmp_path / "mine.py").write_text("def length(prompts, completions):\n    return [len(c) for c in completions]\n")
    return Custom(function=f"{tmp_path}/mine.py:length")


def test_the_score_is_the_sum_of_weight_times_score(rollouts_for, written):
    reward = Weighted(parts={"right": Part(reward=ExactMatch()), "short": Part(weight=-0.1, reward=written)})
    scores = reward(rollouts_for(TEXTS, ROWS))
    torch.testing.assert_close(scores.total, torch.tensor([1 - 0.7, 0 - 0.8, 0 - 0.7]))
    components = {name: part.tolist() for name, part in scores.components.items()}
    assert components == {
        "part/right": [1, 0, 0],
        "part/short": pytest.approx([-0.7, -0.8, -0.7]),
        "part/short/length": [7, 8, 7],
        "correct_strict": [1, 0, 0],
        "correct_flexible": [1, 1, 0],
    }
    assert isinstance(reward, Scorer)


def test_correctness_of_a_second_part_is_logged_with_the_prefix_of_the_part(rollouts_for):
    parts = {"a": Part(reward=ExactMatch()), "b": Part(weight=0.0, reward=ExactMatch(mode="flexible"))}
    scores = Weighted(parts=parts)(rollouts_for(TEXTS, ROWS))
    assert scores.components["part/b"].tolist() == [0, 0, 0]
    assert scores.components["part/b/correct_flexible"].tolist() == scores.components["correct_flexible"].tolist()
    assert scores.total.tolist() == [1, 0, 0]


def test_every_part_checks_the_rows():
    reward = Weighted(parts={"steps": Part(reward=Steps()), "right": Part(reward=ExactMatch())})
    reward.check(ROWS)
    with pytest.raises(UserError, match="exact_match needs the column 'reference'"):
        reward.check([{"id": "r", "prompt": "?"}])


def test_the_content_hash_is_that_of_weights_names_and_parts():
    def content_hash(name="a", weight=1.0, **settings):
        return Weighted(parts={name: Part(weight=weight, reward=ExactMatch(**settings))}).content_hash()

    assert content_hash() == content_hash()
    assert len({content_hash(), content_hash("b"), content_hash(weight=2.0), content_hash(mode="flexible")}) == 4


def test_a_part_gets_the_reward_model_and_its_scale_enters_the_sum(rollouts_for):
    reward = Weighted(parts={"right": Part(reward=ExactMatch()), "liked": Part(weight=0.5, reward=BradleyTerry())})
    assert isinstance(reward, LearnedScorer)
    assert learned(reward) is reward
    assert reward.path is None
    rollouts, model = rollouts_for(TEXTS, ROWS), Model()
    alone, scorer = BradleyTerry().with_model(model)(rollouts), reward.with_model(model)
    scores = scorer(rollouts)
    torch.testing.assert_close(scores.total, torch.tensor([1.0, 0, 0]) + 0.5 * alone.total)
    torch.testing.assert_close(scores.components["part/liked/reward_model"], torch.full((3,), 3.0))
    assert scorer.content_hash() != Weighted(parts={"right": Part(reward=ExactMatch())}).content_hash()
    assert learned(scorer) is None
    scale, raw = reward.scale(model.calibration), alone.components["reward_model"]
    torch.testing.assert_close((raw / scale.temperature - scale.mean) / scale.std, 0.5 * alone.total)


def test_a_sum_of_rewards_without_a_model_needs_no_model():
    reward = Weighted(parts={"right": Part(reward=ExactMatch())})
    assert learned(reward) is None
    assert reward.path is None


def test_an_invalid_sum_is_an_error():
    with pytest.raises(UserError, match="parts is empty"):
        Weighted(parts={})
    liked = Part(reward=BradleyTerry())
    with pytest.raises(UserError, match="parts a, b each need a reward model"):
        Weighted(parts={"a": liked, "b": liked})
    with pytest.raises(UserError, match="liked has weight 0"):
        Weighted(parts={"liked": Part(weight=0.0, reward=BradleyTerry())}).scale(Calibration())
