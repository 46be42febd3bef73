"""Reward model training: independent of microbatches, evaluated on held-out pairs, checked by its gate."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from transformers import AutoModelForCausalLM, GemmaConfig, LlamaConfig

from alignbench.core.batches import sequences
from alignbench.core.errors import InvariantBroken, UserError
from alignbench.core.metric_names import REWARD_MODEL
from alignbench.engine.checks import Invariants
from alignbench.engine.optimizer import AdamW
from alignbench.engine.score import score_with_model
from alignbench.models.loading import Lora, Pretrained, Tiny, save
from alignbench.models.reward_model import load_reward_model, make_reward_model
from alignbench.models.tiny import tiny_tokenizer
from alignbench.stages.reward_model import Comparisons, PairScores, Preference, RewardModelTraining, card_metrics

SOURCE = Tiny(hidden=32, layers=1, heads=2, intermediate=48, vocabulary=280, context=40)
WORDS = ("red", "green", "blue", "grey", "pink", "gold")
ROWS = [
    {"id": f"p{i}", "prompt": f"say {word}", "chosen": f"{word} it is", "rejected": f"not {word}", "margin": 0.5 * i}
    for i, word in enumerate(WORDS)
]
TEXTS = [row["prompt"] + row["chosen"] + row["rejected"] for row in ROWS]
TRAINING = RewardModelTraining(
    steps=40, batch_size=4, optimizer=AdamW(learning_rate=3e-3, warmup_steps=5), gate="error"
)


@pytest.fixture
def model():
    return make_reward_model(SOURCE, texts=TEXTS, start=None, lora=None, device="cpu", seed=0)


def run(model, training=TRAINING, rows=ROWS, microbatch_size=64, **invariants):
    return list(training.run(model, rows, microbatch_size, Invariants(**invariants)))


def turned(*which):
    """The rows, in these of them the worse answer called the better."""
    return [
        row | {"chosen": row["rejected"], "rejected": row["chosen"]} if i in which else row
        for i, row in enumerate(ROWS)
    ]


def weights(model):
    return [p.detach().clone() for _, p in model.trainable()]


# --- kinds of models ----------------------------------------------------------------------------------------------


def folder_of(model, pad_is_eos, folder):
    """A model of random weights on disk with a tokenizer that has, or has not, a padding token of its own."""
    tokenizer = tiny_tokenizer(TEXTS, 280)
    if pad_is_eos:
        tokenizer.pad_token = tokenizer.eos_token
    sizes = {
        "vocab_size": 280,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 40,
        "initializer_range": 0.1,
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": tokenizer.pad_token_id,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(model(**sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def llama(pad_is_eos, folder):
    """All weights, as the SFT model left them."""
    return Pretrained(name="llama", path=folder_of(LlamaConfig, pad_is_eos, folder / "base")), folder / "base"


def gemma_in_four_bits(pad_is_eos, folder):
    """A base in four bits, and an SFT adapter that is not the base any more."""
    base = folder_of(partial(GemmaConfig, head_dim=16, num_key_value_heads=2), pad_is_eos, folder / "base")
    source = Pretrained(name="gemma", path=base, quantization="nf4", lora=Lora(rank=4))
    language, text = source.load(texts=(), start=None, device="cpu", seed=0)
    with torch.no_grad():
        for name in [name for name, _ in language.named_parameters() if "lora_B" in name]:
            language.get_parameter(name).add_(0.05)
    save(language, text, folder / "sft")
    return source, folder / "sft"


@pytest.mark.parametrize("pad_is_eos", [False, True], ids=["pad", "pad is eos"])
@pytest.mark.parametrize("kind", [llama, gemma_in_four_bits])
def test_every_kind_of_model_memorizes_a_few_pairs_and_restores_from_disk(kind, pad_is_eos, tmp_path):
    source, start = kind(pad_is_eos, tmp_path)
    lora = Lora(rank=8, alpha=16.0) if source.lora else None
    model = make_reward_model(source, texts=(), start=start, lora=lora, device="cpu", seed=0)
    assert (model.text.pad == model.text.eos) == pad_is_eos
    reports = run(model)
    card = TRAINING.evaluate(model, ROWS, ROWS, 8)
    assert card["accuracy"] == 1
    assert reports[-1].metrics["reward_model/loss"] < 0.3
    model.save(tmp_path / "reward", card)
    again = load_reward_model(source, tmp_path / "reward", texts=(), device="cpu")
    both = TRAINING.comparisons(ROWS, again.text).take(range(6)).both
    for size in (1, 12):
        torch.testing.assert_close(
            score_with_model(again, both, size), score_with_model(model, both, 12), atol=1e-5, rtol=0
        )


# --- learning -----------------------------------------------------------------------------------------------------


def test_a_few_pairs_are_memorized(model):
    reports = run(model)
    assert len(reports) == 40
    assert reports[-1].metrics["reward_model/loss"] < 0.1 < reports[0].metrics["reward_model/loss"]
    assert reports[-1].metrics["reward_model/accuracy"] == 1
    assert set(reports[0].metrics) <= set(REWARD_MODEL)
    assert not any(report.warnings for report in reports)
    card = TRAINING.evaluate(model, ROWS, ROWS, 64)
    assert card["accuracy"] == card["validation_accuracy"] == 1
    assert TRAINING.check_gate(card) == []


def test_the_same_seed_gives_the_same_model(model):
    others = [make_reward_model(SOURCE, texts=TEXTS, start=None, lora=None, device="cpu", seed=0) for _ in range(2)]
    short = replace(TRAINING, steps=3)
    for each, seed in zip((model, *others), (42, 42, 43), strict=True):
        torch.manual_seed(torch.initial_seed() + 1)
        run(each, replace(short, seed=seed))
    assert all(torch.equal(a, b) for a, b in zip(weights(model), weights(others[0]), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights(model), weights(others[1]), strict=True))


@pytest.mark.parametrize("microbatch_size", [1, 2, 4, 7])
def test_the_model_does_not_depend_on_the_microbatch_size(model, microbatch_size):
    other = make_reward_model(SOURCE, texts=TEXTS, start=None, lora=None, device="cpu", seed=0)
    short = replace(TRAINING, steps=1, margin_scale=1.0, optimizer=AdamW(learning_rate=1e-3, warmup_steps=0, eps=1e-3))
    (whole,), (found,) = run(model, short), run(other, short, microbatch_size=microbatch_size)
    assert found.metrics == pytest.approx(whole.metrics, rel=1e-4, abs=1e-5)
    for a, b in zip(weights(model), weights(other), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_logged_metrics_agree_with_the_scores(model):
    pairs = replace(TRAINING, margin_scale=2.0).comparisons(ROWS, model.text).take(range(6))
    with torch.no_grad():
        lists = [
            [model.text.encode_prompt(r["prompt"]) for r in ROWS],
            *([model.text.encode_completion(r[side]) for r in ROWS] for side in ("chosen", "rejected")),
        ]
        chosen, rejected = (model(sequences(lists[0], lists[side], 0)) for side in (1, 2))
        shown = Preference(model).sums(pairs)
    lead = (chosen - rejected).double()
    by_hand = -(lead - torch.tensor([r["margin"] * 2 for r in ROWS])).sigmoid().log().sum()
    assert shown["loss"].item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert shown["accuracy"] == (lead > 0).sum()
    assert shown["lead"].item() == pytest.approx(lead.sum().item(), abs=1e-5)


def test_a_frozen_model_is_detected(model):
    model.model.requires_grad_(False)
    with pytest.raises(InvariantBroken, match="trainable"):
        run(model)


def test_a_nan_loss_never_reaches_the_weights(model):
    with torch.no_grad():
        model.inner.score.weight[0, 0] = float("nan")
    before = weights(model)
    with pytest.raises(InvariantBroken, match="the loss is nan"):
        run(model)
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(before, weights(model), strict=True))


def test_unchanged_weights_are_detected(model):
    with pytest.raises(InvariantBroken, match="weights_moved"):
        run(model, replace(TRAINING, optimizer=AdamW(learning_rate=1e-30)))


# --- pairs --------------------------------------------------------------------------------------------------------


def test_pairs_are_tokenized_as_answers_are(model):
    pairs = TRAINING.comparisons(ROWS, model.text)
    batch = pairs.take([2, 0])
    text, both = model.text, batch.both
    for place, (number, side) in enumerate([(2, "chosen"), (0, "chosen"), (2, "rejected"), (0, "rejected")]):
        prompt = both.prompts[place][-both.prompt_lengths[place] :].tolist()
        assert prompt == text.encode_prompt(ROWS[number]["prompt"])
        assert both.responses[place][both.mask[place]].tolist() == text.encode_completion(ROWS[number][side])
    assert batch.margin.tolist() == [0.0, 0.0]
    assert replace(TRAINING, margin_scale=3.0).comparisons(ROWS, text).take([2, 0]).margin.tolist() == [3.0, 0.0]


def test_the_order_of_pairs_is_a_function_of_seed_and_step(model):
    pairs = TRAINING.comparisons(ROWS, model.text)
    epoch = [pairs.batch(7, step, 2).both.responses.tolist() for step in range(3)]
    assert epoch == [pairs.batch(7, step, 2).both.responses.tolist() for step in range(3)]
    each, all_in_order = (sorted(b.both.responses.tolist()) for b in (pairs.batch(7, 0, 6), pairs.take(range(6))))
    assert each == all_in_order


def test_pairs_that_are_too_long_are_an_error_or_dropped_and_counted(model):
    long = {"id": "long", "prompt": "say", "chosen": "a", "rejected": "z" * 60}
    with pytest.raises(UserError, match=r"pair long has \d+ \+ 61 tokens, more than 40.*too_long=drop"):
        TRAINING.comparisons([*ROWS, long], model.text)
    kept = replace(TRAINING, too_long="drop").comparisons([*ROWS, long], model.text)
    assert (len(kept.tokens), len(kept.margins), kept.dropped) == (6, 6, 1)
    assert replace(TRAINING, too_long="drop").evaluate(model, [*ROWS, long], ROWS, 8)["dropped_pairs"] == {
        "validation": 1,
        "test": 0,
    }
    first, second = run(model, replace(TRAINING, too_long="drop", steps=2), [*ROWS, long])
    assert first.warnings == ("dropped 1 of 7 pairs that have more than 40 tokens",)
    assert second.warnings == ()
    with pytest.raises(UserError, match="each of the 6 pairs has more than 3 tokens"):
        replace(TRAINING, too_long="drop", max_tokens=3).comparisons(ROWS, model.text)
    with pytest.raises(UserError, match="has no preference pairs"):
        TRAINING.comparisons([], model.text)


def test_margin_scale_needs_margins(model):
    rows = [{k: v for k, v in row.items() if k != "margin"} for row in ROWS]
    with pytest.raises(UserError, match="pair p0 has no margin"):
        replace(TRAINING, margin_scale=1.0).comparisons(rows, model.text)
    card = TRAINING.evaluate(model, rows, rows, 8)
    assert card["accuracy_by_margin"] == []


# --- the card -----------------------------------------------------------------------------------------------------


def test_the_card_agrees_with_the_scores(model):
    run(model, replace(TRAINING, steps=6))
    test = turned(4)
    card = TRAINING.evaluate(model, ROWS, test, 5)
    pairs = PairScores.compute(model, TRAINING.comparisons(test, model.text), 64)
    right = (pairs.leads > 0).tolist()
    assert card["accuracy"] == sum(right) / 6
    assert card["pairs"] == card["validation_pairs"] == 6
    assert [row[3] for row in card["accuracy_by_margin"]] == [1, 1, 1, 1, 2]
    assert [row[:2] for row in card["accuracy_by_margin"]] == [(0, 0.5), (0.5, 1), (1, 1.5), (1.5, 2), (2, None)]
    assert card["accuracy_by_margin"][-1][2] == sum(right[4:]) / 2
    assert sum(row[3] for row in card["accuracy_by_length"]) == 6
    longer = [
        len(model.text.encode_completion(r["chosen"])) - len(model.text.encode_completion(r["rejected"])) for r in test
    ]
    for low, high, share, count in card["accuracy_by_length"]:
        above = [low is None or d >= low for d in longer]
        inside = [r for r, d, a in zip(right, longer, above, strict=True) if a and (high is None or d < high)]
        assert (share, count) == (sum(inside) / len(inside), len(inside))
    assert json.loads(json.dumps(card)) == json.loads(json.dumps(card, allow_nan=False))
    assert set(card_metrics(card)) <= set(REWARD_MODEL)


def test_an_overconfident_model_gets_a_temperature(model):
    run(model)
    noisy = turned(0, 1)
    with torch.no_grad():
        model.inner.score.weight *= 3
    card = TRAINING.evaluate(model, noisy, noisy, 8)
    assert card["accuracy"] == pytest.approx(4 / 6)
    assert card["validation_ece_unscaled"] > 0.3
    assert card["temperature"] > 3
    assert card["validation_ece"] < card["validation_ece_unscaled"] - 0.2
    assert card["ece_unscaled"] == card["validation_ece_unscaled"]
    both = TRAINING.comparisons(noisy, model.text).take(range(6)).both
    scores = score_with_model(model, both, 8).double() / card["temperature"]
    assert card["mean"] == pytest.approx(scores.mean().item(), abs=1e-6)
    assert card["std"] == pytest.approx(scores.std(correction=0).item(), abs=1e-6)
    calm = replace(TRAINING, max_ece=0.9).evaluate(model, noisy, noisy, 8)
    assert calm["temperature"] == 1
    assert calm["ece"] == calm["ece_unscaled"]


def test_the_gate_stops_warns_or_is_off():
    bad = {"validation_accuracy": 0.6, "validation_pairs": 50, "validation_ece": 0.2, "temperature": 2.0}
    with pytest.raises(UserError, match=r"60\.0% of 50 validation pairs.*0\.200 at temperature 2.*gate=warn continues"):
        TRAINING.check_gate(bad)
    (told,) = replace(TRAINING, gate="warn").check_gate(bad)
    assert "(reward_model.gate)" in told
    assert replace(TRAINING, gate="off").check_gate(bad) == []
    assert TRAINING.check_gate(bad | {"validation_accuracy": 0.7, "validation_ece": 0.1}) == []


# --- scored as trained ----------------------------------------------------------------------------------------------


def test_a_loaded_model_gives_the_same_scores_in_any_batch(model, tmp_path):
    run(model)
    card = TRAINING.evaluate(model, ROWS, ROWS, 8)
    model.save(tmp_path, card)
    again = load_reward_model(SOURCE, tmp_path, texts=TEXTS, device="cpu")
    pairs: Comparisons = TRAINING.comparisons(ROWS, again.text)
    in_training = torch.cat([model(pairs.batch(42, step, 2).both).detach() for step in range(3)])
    for size in (1, 12):
        scored = torch.cat([score_with_model(again, pairs.batch(42, step, 2).both, size) for step in range(3)])
        torch.testing.assert_close(scored, in_training, atol=1e-5, rtol=0)
    assert (again.calibration.mean, again.calibration.std) == (card["mean"], card["std"])
