"""The calibrated score of a reward model, independent of the microbatch size."""

import pytest
import torch

from alignbench.core.batches import Rollouts, sequences
from alignbench.core.errors import UserError
from alignbench.core.protocols import Calibration, LearnedScorer, ScoreModel, Scorer
from alignbench.models.loading import Tiny
from alignbench.models.reward_model import make_reward_model
from alignbench.rewards.bradley_terry import BradleyTerry

SCALE = Calibration(temperature=2.0, mean=0.5, std=4.0)


@pytest.fixture(scope="module")
def model():
    source = Tiny(hidden=32, layers=2, heads=2, intermediate=48, vocabulary=280, context=128)
    found = make_reward_model(source, texts=["say red"], start=None, lora=None, device="cpu", seed=0)
    found.calibration, found._weights_checksum = SCALE, "weights"
    return found


@pytest.fixture(scope="module")
def rollouts():
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 60, (1000, 2), generator=draw).tolist()
    lists = [[torch.randint(2, 200, (n,), generator=draw).tolist() for n in pair] for pair in lengths]
    both = sequences([p for p, _ in lists], [r for _, r in lists], 0)
    return both.widen(
        Rollouts,
        group=torch.arange(1000) // 4,
        logprobs=torch.zeros(both.mask.shape),
        truncated=torch.zeros(1000, dtype=torch.bool),
        texts=("?",) * 1000,
        rows=tuple({"id": i, "prompt": "?"} for i in range(1000)),
    )


def test_the_parts_keep_their_promises(model):
    reward = BradleyTerry()
    assert isinstance(reward, LearnedScorer)
    assert not isinstance(reward, Scorer)
    assert isinstance(model, ScoreModel)
    assert isinstance(reward.with_model(model), Scorer)


def test_a_score_is_brought_to_the_scale_of_held_out_answers(model, rollouts):
    few = rollouts[torch.arange(20)]
    with torch.no_grad():
        raw = model(few)
    scores, plain = BradleyTerry().with_model(model)(few), BradleyTerry(standardise=False).with_model(model)(few)
    torch.testing.assert_close(scores.total, (raw / 2 - 0.5) / 4, atol=1e-5, rtol=0)
    torch.testing.assert_close(plain.total, raw / 2, atol=1e-5, rtol=0)
    for found in (scores, plain):
        torch.testing.assert_close(found.components["reward_model"], raw, atol=1e-5, rtol=0)
        assert found.total.dtype == torch.float32
        assert not found.total.requires_grad


def test_a_thousand_scores_do_not_depend_on_how_many_are_scored_at_once(model, rollouts):
    whole = BradleyTerry(microbatch_size=1000).with_model(model)(rollouts).total
    assert whole.std() > 0.01
    for size in (1, 7, 64):
        found = BradleyTerry(microbatch_size=size).with_model(model)(rollouts).total
        torch.testing.assert_close(found, whole, atol=1e-5, rtol=0)
    alone = torch.cat([BradleyTerry().with_model(model)(rollouts[torch.tensor([i])]).total for i in range(0, 1000, 50)])
    torch.testing.assert_close(alone, whole[::50], atol=1e-5, rtol=0)


def test_a_row_without_a_prompt_is_an_error(model):
    for scorer in (BradleyTerry(), BradleyTerry().with_model(model)):
        scorer.check([{"id": 1, "prompt": "say red"}])
        with pytest.raises(UserError, match="needs the column 'prompt', a text; row 7 has the columns id, text"):
            scorer.check([{"id": 7, "text": "say red"}])


def test_a_folder_without_a_reward_model_is_an_error_before_training(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} has no reward model"):
        BradleyTerry(path=str(tmp_path)).check([])


def test_the_content_hash_is_that_of_knobs_and_weights_and_not_of_the_folder(model):
    def content_hash(weights="weights", **settings):
        model._weights_checksum = weights
        return BradleyTerry(**settings).with_model(model).content_hash()

    assert content_hash() == content_hash() == content_hash(path="elsewhere")
    assert len({content_hash(), content_hash(standardise=False), content_hash("other weights")}) == 3
