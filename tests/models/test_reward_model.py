"""The reward model: padding, head, adapters, calibration, and loading by transformers."""

import json

import pytest
import torch
from small_models import CONFIGS, EOS, PAD, PROMPTS, RESPONSES, SIZES, batch, make_model, make_scoring, make_text
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GemmaConfig

from alignbench.core.batches import Rollouts, Sequences, sequences
from alignbench.core.errors import UserError
from alignbench.engine.score import score_with_model
from alignbench.models.loading import Lora, Pretrained, Tiny, save
from alignbench.models.policy import CausalPolicy
from alignbench.models.reward_model import (
    SFT,
    RetokenizedRewardModel,
    RewardModel,
    adapt_to_policy,
    load_reward_model,
    make_reward_model,
)

CARD = {"temperature": 2.0, "mean": 0.5, "std": 3.0}


@pytest.fixture(scope="module", params=list(CONFIGS))
def model(request, text):
    return RewardModel(make_scoring(request.param), text)


@pytest.fixture(scope="module")
def small(text):
    return RewardModel(make_scoring("llama"), text)


@torch.no_grad()
def by_hand(model, prompts=PROMPTS, responses=RESPONSES):
    """The score of the plain model for each single row, without a padding token."""
    model.config.pad_token_id = None
    rows = [torch.tensor([p + r]) for p, r in zip(prompts, responses, strict=True)]
    return torch.cat([model.eval()(input_ids=row, use_cache=False).logits[:, 0] for row in rows])


def close(found, expected, atol=1e-5):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


@torch.no_grad()
def test_a_score_equals_that_of_the_plain_model_on_a_single_row(model):
    expected = by_hand(make_scoring(model.inner.config.model_type))
    assert expected.std() > 0.1
    close(model(batch()), expected)
    assert model(batch()).dtype == torch.float32


@torch.no_grad()
@pytest.mark.parametrize("pad", [PAD, EOS])
def test_padding_does_not_change_scores(pad):
    text, plain = make_text(pad_is_eos=pad == EOS), make_scoring("llama")
    plain.config.pad_token_id = text.pad
    assert text.pad == pad
    model, expected, rows = RewardModel(plain, text), by_hand(make_scoring("llama")), batch(pad=pad)
    close(model(rows), expected)
    alone = [model(batch([p], [r], pad)) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    close(torch.cat(alone), expected)
    wide = Sequences(
        prompts=torch.nn.functional.pad(rows.prompts, (5, 0), value=9),
        prompt_lengths=rows.prompt_lengths,
        responses=torch.nn.functional.pad(torch.where(rows.mask, rows.responses, 13), (0, 7), value=EOS),
        mask=torch.nn.functional.pad(rows.mask, (0, 7)),
    )
    close(model(wide), expected)


@torch.no_grad()
def test_the_last_token_is_scored_even_if_it_ends_the_sequence(small):
    with_end, without = small(batch([[5, 6]], [[3, 4, EOS]])), small(batch([[5, 6]], [[3, 4]]))
    assert abs(with_end - without) > 0.01
    close(small(batch([[5, 6], [5, 6, 3]], [[3, 4, EOS], [4, EOS]])), with_end.expand(2))


def thousand() -> Sequences:
    draw = torch.Generator().manual_seed(0)
    sizes = torch.randint(1, 20, (1000, 2), generator=draw).tolist()
    lists = [[torch.randint(1, 16, (n,), generator=draw).tolist() for n in pair] for pair in sizes]
    return sequences([p for p, _ in lists], [r for _, r in lists], PAD)


def test_a_thousand_scores_do_not_depend_on_the_batch_size(small):
    rows = thousand()
    whole = score_with_model(small, rows, 1000)
    assert whole.std() > 0.1
    for size in (1, 7, 64):
        close(score_with_model(small, rows, size), whole)
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(1))
    close(score_with_model(small, rows[order], 64), whole[order])


def test_scores_have_a_gradient_and_do_not_change_in_training_mode(small):
    with small.training():
        trained_on = small(batch())
        assert small.model.training
    assert not small.model.training
    assert trained_on.requires_grad
    assert torch.equal(trained_on.detach(), score_with_model(small, batch(), 100))
    assert {name for name, _ in small.trainable()} == {name for name, _ in small.model.named_parameters()}


# --- first weights ------------------------------------------------------------------------------------------------


def begin(folder=None, seed=0, source=None, lora=None, texts=()):
    source = source or Pretrained(name="any", path=str(folder))
    return make_reward_model(source, texts=texts, start=None, lora=lora, device="cpu", seed=seed)


def test_it_starts_from_the_trunk_of_a_language_model_and_a_seeded_head(checkpoint):
    torch.manual_seed(5)
    model = begin(checkpoint)
    torch.manual_seed(6)
    again, other = begin(checkpoint), begin(checkpoint, seed=1)
    language = make_model("llama").model.state_dict()
    assert all(torch.equal(language[name], p) for name, p in model.inner.model.state_dict().items())
    assert torch.equal(model.inner.score.weight, again.inner.score.weight)
    assert not torch.equal(model.inner.score.weight, other.inner.score.weight)
    assert model.inner.score.weight.std().item() == pytest.approx(33**-0.5, rel=0.4)


def test_it_can_start_from_the_built_in_model():
    source, texts = Tiny(hidden=16, layers=1, heads=2, intermediate=16, vocabulary=300), ["1 + 2 = 3"] * 20
    torch.manual_seed(5)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    model = begin(source=source, texts=texts)
    assert torch.equal(torch.rand(3), drawn), "loading does not use the global generator"
    language, _ = source.load(texts=texts, start=None, device="cpu", seed=0)
    expected = language.model.state_dict()
    assert all(torch.equal(expected[name], p) for name, p in model.inner.model.state_dict().items())


def test_a_new_adapter_on_a_fully_trained_sft_model_raises(checkpoint):
    with pytest.raises(UserError, match=r"reward_model\.lora=null"):
        make_reward_model(
            Pretrained(name="any", path=str(checkpoint)), texts=(), start=checkpoint, lora=Lora(), device="cpu", seed=0
        )


# --- all weights, saved and loaded --------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path, checkpoint):
    model = begin(checkpoint)
    model.save(tmp_path, CARD)
    return model, tmp_path


@torch.no_grad()
def test_a_saved_model_is_loaded_frozen_with_its_calibration(saved):
    model, folder = saved
    again = load_reward_model(Pretrained(name="gone", path="/nowhere"), folder, texts=(), device="cpu")
    assert torch.equal(again(batch()), model(batch()))
    assert not list(again.trainable())
    assert (again.calibration.temperature, again.calibration.mean, again.calibration.std) == (2.0, 0.5, 3.0)
    assert json.loads((folder / "reward_model.json").read_text()) == CARD
    assert again.text.tokenizer.get_vocab() == model.text.tokenizer.get_vocab()


@torch.no_grad()
@pytest.mark.parametrize("left", [False, True])
def test_transformers_loads_it_and_gives_the_same_scores(saved, left):
    model, folder = saved
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = [torch.tensor(p + r) for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    side = "left" if left else "right"
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD, padding_side=side)
    seen = torch.nn.utils.rnn.pad_sequence([torch.ones_like(r) for r in rows], batch_first=True, padding_side=side)
    close(plain(input_ids=ids, attention_mask=seen).logits[:, 0], model(batch()))


def test_if_padding_ends_answers_transformers_raises_instead_of_guessing(tmp_path, checkpoint):
    make_text(pad_is_eos=True).tokenizer.save_pretrained(tmp_path)
    make_model("llama", pad_token_id=EOS).save_pretrained(tmp_path)
    model = begin(tmp_path)
    model.save(tmp_path / "reward", CARD)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward").eval()
    with torch.no_grad(), pytest.raises(ValueError, match="no padding token"):
        plain(input_ids=torch.tensor([[3, EOS], [4, EOS]]))
    with torch.no_grad():
        close(plain(input_ids=torch.tensor([[3, EOS]])).logits[0], model(batch([[3]], [[EOS]], EOS)))


def test_the_weights_checksum_covers_weights_and_scale(saved, tmp_path):
    model, folder = saved
    source = Pretrained(name="any")

    def weights_checksum():
        return load_reward_model(source, folder, texts=(), device="cpu").weights_checksum()

    first = weights_checksum()
    assert first == weights_checksum()
    model.save(folder, CARD | {"mean": 0.6})
    rescaled = weights_checksum()
    with torch.no_grad():
        model.inner.score.weight[0, 0] += 1e-3
    model.save(folder, CARD)
    assert len({first, rescaled, weights_checksum()}) == 3


def test_folders_without_a_reward_model_raise_user_error(tmp_path, checkpoint):
    source = Pretrained(name="any")
    with pytest.raises(UserError, match=r"has no reward model.*config\.json"):
        load_reward_model(source, tmp_path, texts=(), device="cpu")
    with pytest.raises(UserError, match="LlamaForCausalLM without a head for one score"):
        load_reward_model(source, checkpoint, texts=(), device="cpu")
    make_scoring("llama", num_labels=3).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="num_labels=1"):
        load_reward_model(source, tmp_path, texts=(), device="cpu")


def test_a_nonlinear_head_raises(text):
    class Nonlinear(type(make_scoring("llama"))):
        def forward(self, **inputs):
            out = super().forward(**inputs)
            out.logits = out.logits.tanh() / 2
            return out

    nonlinear = make_scoring("llama")
    nonlinear.__class__ = Nonlinear
    with pytest.raises(UserError, match="linear head named `score`"):
        RewardModel(nonlinear, text)
    with pytest.raises(UserError, match="linear head named `score`"):
        RewardModel(make_model("llama"), text)


# --- adapters -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[PAD, EOS], ids=["pad", "pad is eos"])
def gemma(request, tmp_path_factory):
    """A small Gemma on disk; its widths are multiples of 64, the block size of 4-bit weights."""
    text = make_text(pad_is_eos=request.param == EOS)
    config = GemmaConfig(
        **SIZES | {"hidden_size": 64, "intermediate_size": 64, "pad_token_id": request.param},
        num_key_value_heads=2,
        head_dim=16,
    )
    folder = tmp_path_factory.mktemp("gemma")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    text.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["none", "nf4"])
def adapted(request, gemma, tmp_path_factory):
    """A base model, and the folder of a trained SFT adapter."""
    source = Pretrained(name="gemma", path=str(gemma), quantization=request.param, lora=Lora(rank=4))
    model, text = source.load(texts=(), start=None, device="cpu", seed=0)
    policy, folder = CausalPolicy(model, text), tmp_path_factory.mktemp("sft")
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, p in policy.trainable():
            p += 0.1 * torch.randn(p.shape, generator=draw)
    save(model, text, folder)
    return source, folder, policy


def on_top(adapted, lora=None, seed=0):
    source, folder, _ = adapted
    return make_reward_model(source, texts=(), start=folder, lora=lora, device="cpu", seed=seed)


@torch.no_grad()
def hidden(model, ids):
    return model(input_ids=ids, use_cache=False).last_hidden_state


def test_it_starts_as_the_sft_model_with_a_frozen_and_a_new_adapter(adapted):
    model, policy = on_top(adapted, Lora(rank=2, alpha=4.0)), adapted[2]
    ids = torch.tensor([[3, 4, 5, 6]])
    close(hidden(model.inner.base_model, ids), hidden(policy.inner.get_decoder(), ids), atol=1e-4)
    names = [name for name, _ in model.trainable()]
    assert names
    assert all(".default." in name for name in names)
    assert [name for name in names if "score" in name] == ["base_model.model.score.modules_to_save.default.weight"]
    assert all(p.dtype == torch.float32 for _, p in model.trainable())
    config = model.model.peft_config
    assert (config["default"].r, config["default"].lora_alpha, config[SFT].r) == (2, 4.0, 4)
    assert on_top(adapted).model.peft_config["default"].r == 4, "the shape of model.lora where none is given"


def learn(model, rows, steps=30, rate=1e-2):
    """Prefer the first half of the rows to the second."""
    optimizer = torch.optim.Adam([p for _, p in model.trainable()], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        better, worse = model(rows).view(2, -1)
        (-torch.nn.functional.logsigmoid(better - worse)).mean().backward()
        optimizer.step()


def test_adapter_and_head_are_trained_saved_and_loaded(adapted, tmp_path):
    model, rows = on_top(adapted), batch()
    frozen = {n: p.detach().clone() for n, p in model.model.named_parameters() if not p.requires_grad}
    start = {n: p.detach().clone() for n, p in model.trainable()}
    better, worse = score_with_model(model, rows, 8).view(2, -1)
    wished = rows if (better < worse).any() else rows[torch.tensor([2, 3, 0, 1])]
    learn(model, wished)
    scores = score_with_model(model, wished, 8)
    assert (scores[:2] > scores[2:] + 1).all()
    assert all(not torch.equal(start[n], p) for n, p in model.trainable())
    assert all(torch.equal(frozen[n], p) for n, p in model.model.named_parameters() if n in frozen)

    model.save(tmp_path, CARD)
    assert (tmp_path / SFT / "adapter_config.json").is_file()
    again = load_reward_model(adapted[0], tmp_path, texts=(), device="cpu")
    close(score_with_model(again, wished, 8), scores, atol=1e-6)
    assert not list(again.trainable())
    assert again.calibration.mean == 0.5
    for size in (1, 3):
        close(score_with_model(again, wished, size), scores)


def test_without_an_sft_model_one_adapter_is_enough(gemma, tmp_path):
    source = Pretrained(name="gemma", path=str(gemma), lora=Lora(rank=4))
    model = begin(source=source)
    learn(model, batch(), steps=2)
    model.save(tmp_path, CARD)
    assert not (tmp_path / SFT).exists()
    close(
        score_with_model(load_reward_model(source, tmp_path, texts=(), device="cpu"), batch(), 8),
        score_with_model(model, batch(), 8),
        atol=1e-6,
    )


# --- another tokenizer ----------------------------------------------------------------------------------------------


def rollouts(text, answers, cut):
    rows = tuple({"id": i, "prompt": p} for i, p in enumerate(("1 + 2", "say 3")))
    ended = [text.encode_completion(a) for a in answers]
    both = sequences(
        [text.encode_prompt(r["prompt"]) for r in rows],
        [t[:-1] if c else t for t, c in zip(ended, cut, strict=True)],
        text.pad,
    )
    n = len(both)
    return both.widen(
        Rollouts,
        group=torch.arange(n),
        logprobs=torch.zeros(both.mask.shape),
        truncated=torch.tensor(cut),
        texts=tuple(answers),
        rows=rows,
    )


def test_rollouts_of_another_tokenizer_are_encoded_again():
    config = {"vocab_size": 400}
    ours, theirs = (Tiny(vocabulary=v).load_text(["1 + 2 = 3", "say 3"] * 30) for v in (258, 300))
    model = RewardModel(make_scoring("llama", **config), theirs)
    assert adapt_to_policy(model, theirs) is model
    translated = adapt_to_policy(model, ours)
    assert isinstance(translated, RetokenizedRewardModel)
    written, expected = rollouts(ours, ["= 3", "3"], [False, True]), rollouts(theirs, ["= 3", "3"], [False, True])
    assert written.prompts.shape != expected.prompts.shape
    close(score_with_model(translated, written, 8), score_with_model(model, expected, 8))
    close(score_with_model(translated, written, 1), score_with_model(model, expected, 8))


# --- low precision --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_with_a_low_precision_adapter_the_head_stays_float32(gemma, tmp_path, quantization):
    source = Pretrained(name="gemma", path=str(gemma), dtype="bfloat16", quantization=quantization, lora=Lora(rank=4))
    model = begin(source=source)
    assert model.inner.get_input_embeddings().weight.dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for _, p in model.trainable())
    before = score_with_model(model, batch(), 8).view(2, -1)
    wished = batch() if (before[0] < before[1]).any() else batch()[torch.tensor([2, 3, 0, 1])]
    learn(model, wished)
    scores = score_with_model(model, wished, 8)
    assert scores.dtype == torch.float32
    assert (scores[:2] > scores[2:]).all()
    model.save(tmp_path, CARD)
    close(score_with_model(load_reward_model(source, tmp_path, texts=(), device="cpu"), wished, 8), scores)


def test_low_precision_weights_are_loaded_unchanged(checkpoint, tmp_path):
    source = Pretrained(name="llama", path=str(checkpoint), dtype="bfloat16")
    model = begin(source=source)
    model.save(tmp_path, CARD)
    again = load_reward_model(source, tmp_path, texts=(), device="cpu")
    assert again.inner.score.weight.dtype == torch.bfloat16
    close(score_with_model(again, batch(), 8), score_with_model(model, batch(), 8), atol=0)
