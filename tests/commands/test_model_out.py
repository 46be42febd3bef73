"""What a run leaves goes out: plain transformers and peft load it as its card says, and an adapter can be merged."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from small_runs import SMALL, config, lines, run_small
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from alignbench.commands.merge import _read, merge
from alignbench.core.errors import UserError
from alignbench.models.tiny import tiny_tokenizer
from alignbench.runs.completed_run import CompletedRun
from alignbench.runs.pipeline import run
from alignbench.runs.settings import identify
from analysis.__main__ import main as analysis

REWARD = "def variety(prompts, completions):\n    return [float(len(set(text))) for text in completions]\n"
CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)
LEARNING = ("rl.optimizer.learning_rate=1e-2", "rl.optimizer.warmup_steps=0", "sft.optimizer.warmup_steps=0")
KINDS = {
    "adapter": ("model.quantization=none", "model.lora={rank:4,alpha:8,targets:all-linear}"),
    "four_bits": ("model.quantization=nf4", "model.lora={rank:4,alpha:8,targets:all-linear}"),
    "full": ("model.quantization=none", "model.lora=null"),
}
TEXT = "Tom has 3 pens and buys 4. How many pens now?\n"


@pytest.fixture(autouse=True)
def same_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """On some CPUs 4-bit layers answer in bfloat16 outside of training, which the package forbids to its own."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as somebody downloads one: a chat model, its widths multiples of 64 as 4-bit blocks are."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = tiny_tokenizer([TEXT] * 5, 270)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=256,
            initializer_range=0.2,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
            tie_word_embeddings=False,
        )
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def runs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each kind, its weights moved by a reward that tells answers apart."""
    outputs = tmp_path_factory.mktemp("outputs")
    (outputs / "reward.py").write_text(REWARD)
    found = {}
    for kind, words in KINDS.items():
        cfg = config(
            *(word for word in SMALL if not word.startswith("model.")),
            *LEARNING,
            *words,
            "model=gemma2b",
            f"model.path={base}",
            "reward=custom",
            f"reward.function={outputs}/reward.py:variety",
            "study=out",
            "rl.max_prompt_tokens=200",
            "tracking.enabled=false",
            f"output_dir={outputs}",
        )
        run(cfg)
        found[kind] = identify(cfg).run_dir
    return found


def as_the_card_says(folder: Path) -> dict[str, Any]:
    """What the names of a card's snippet stand for after its lines are run as they are."""
    (snippet,) = re.findall(r"^```python\n(.*?)^```", (folder / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(snippet, names)
    return names


@torch.no_grad()
def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    return model.eval()(**tokenizer(TEXT, return_tensors="pt")).logits[0].float()


def ours(folder: Path) -> torch.Tensor:
    """The logits of the run's final model as this package loads it."""
    model, text = CompletedRun.open(str(folder)).final.load("cpu")
    return logits(model, text.tokenizer)


@pytest.mark.parametrize("kind", KINDS)
def test_plain_transformers_load_what_the_run_trained(runs: dict[str, Path], kind: str) -> None:
    found = as_the_card_says(runs[kind] / "final")
    theirs = logits(found["model"], found["tokenizer"])
    torch.testing.assert_close(theirs, ours(runs[kind]), atol=1e-5, rtol=1e-5)
    row = lines(runs[kind] / "eval.jsonl")[0]
    chat = [{"role": "user", "content": row["prompt"]}]
    inputs = found["tokenizer"].apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    ids = found["model"].generate(**inputs, do_sample=False, max_new_tokens=8, suppress_tokens=[0])
    assert found["tokenizer"].decode(ids[0, inputs.input_ids.shape[1] :], skip_special_tokens=True) == row["response"]


@pytest.mark.parametrize("kind", ["adapter", "full"])
def test_what_was_trained_is_not_where_it_began(runs: dict[str, Path], base: Path, kind: str) -> None:
    start, text = CompletedRun.open(str(runs[kind])).start.load("cpu")
    assert (ours(runs[kind]) - logits(start, text.tokenizer)).abs().max() > 1e-3
    untrained = AutoModelForCausalLM.from_pretrained(base)
    assert (ours(runs[kind]) - logits(untrained, text.tokenizer)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["adapter", "four_bits"])
def test_a_merged_model_is_the_adapter_on_the_base_without_quantisation(
    runs: dict[str, Path], base: Path, tmp_path: Path, kind: str
) -> None:
    from peft import PeftModel

    merged = merge({"run": str(runs[kind]), "to": str(tmp_path / "merged")})
    found = as_the_card_says(merged)
    assert not hasattr(found["model"], "peft_config")
    assert found["model"].dtype == torch.float32
    got = logits(found["model"], found["tokenizer"])
    side_by_side = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), runs[kind] / "final")
    torch.testing.assert_close(got, logits(side_by_side, found["tokenizer"]), atol=1e-4, rtol=1e-4)
    weight = "model.layers.0.mlp.up_proj"
    own, plain = (
        model.get_submodule(weight).weight for model in (found["model"], AutoModelForCausalLM.from_pretrained(base))
    )
    assert torch.linalg.matrix_rank(own - plain, atol=1e-4) <= 4, "the rounding to 4 bits would have full rank"


def test_a_merged_model_differs_from_the_one_trained_in_four_bits_as_the_base_does(
    runs: dict[str, Path], base: Path, tmp_path: Path
) -> None:
    merged = merge({"run": str(runs["four_bits"]), "to": str(tmp_path / "merged")})
    (trained, text), (untrained, _) = (
        weights.load("cpu")
        for weights in (CompletedRun.open(str(runs["four_bits"])).final, CompletedRun.open(str(runs["four_bits"])).base)
    )
    by_merging = divergence(trained, AutoModelForCausalLM.from_pretrained(merged), text.tokenizer)
    by_rounding = divergence(untrained, AutoModelForCausalLM.from_pretrained(base), text.tokenizer)
    assert 1e-3 < by_merging < 2 * by_rounding
    assert "is merged into the base without them" in (merged / "README.md").read_text()


def divergence(one: Any, other: Any, tokenizer: Any) -> float:
    """KL of the first model from the second, nats a token."""
    first, second = (logits(model, tokenizer).log_softmax(-1) for model in (one, other))
    return float((first.exp() * (first - second)).sum(-1).mean())


def test_a_model_is_merged_in_the_precision_asked_for(runs: dict[str, Path], tmp_path: Path) -> None:
    merged = merge({"run": str(runs["adapter"] / "final"), "to": str(tmp_path / "half"), "dtype": "bfloat16"})
    half = as_the_card_says(merged)["model"]
    assert half.dtype == torch.bfloat16
    whole = AutoModelForCausalLM.from_pretrained(merge({"run": str(runs["adapter"]), "to": str(tmp_path / "whole")}))
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(half.state_dict()[name].float(), weight, rtol=2**-7, atol=2**-9)


def test_a_card_tells_what_the_run_wrote_down(runs: dict[str, Path]) -> None:
    for kind, folder in runs.items():
        card = ModelCard.load(folder / "final" / "README.md", ignore_metadata_errors=False)
        adapter = kind != "full"
        assert card.data.base_model == "google/gemma-2b-it"
        assert card.data.library_name == ("peft" if adapter else "transformers")
        assert {"alignbench", "rlhf", "grpo"} <= set(card.data.tags)
        assert ("lora" in card.data.tags) == adapter
        end = lines(folder / "metrics.jsonl")[-1]["metrics"]
        reward = f"| mean reward | {end['final/start_avg_reward']:.4g} | {end['final/avg_reward']:.4g} |"
        assert reward in card.text
        assert "On 6 held-out prompts, one greedy answer to each" in card.text
        manifest = json.loads((folder / "manifest.json").read_text())
        for told in ("seed | 42 |", "method | grpo, 2 steps of 16 answers", manifest["data"]["train"]["sha256"][:12]):
            assert told in card.text
        if manifest["git"]:
            assert manifest["git"]["commit"] in card.text
        assert ("BitsAndBytesConfig" in card.text) == (kind == "four_bits")


def test_a_report_tells_the_cards_its_verdict(runs: dict[str, Path]) -> None:
    outputs = runs["full"].parents[2]
    words = ["study=out", f"output_dir={outputs}"]
    assert "not known when this run ended" in (runs["full"] / "final" / "README.md").read_text()
    analysis(words)
    once = [(folder / "final" / "README.md").read_text() for folder in runs.values()]
    said = json.loads((outputs / "reports" / "out" / "report.json").read_text())["verdict"]["sentence"]
    assert all(
        f"<!-- verdict -->{said} The report: `{outputs}/reports/out/report.md`<!-- /verdict -->" in card
        for card in once
    )
    analysis(words)
    assert [(folder / "final" / "README.md").read_text() for folder in runs.values()] == once


def test_an_embedded_base_goes_out_merged(tmp_path: Path) -> None:
    folder = run_small(tmp_path, "model.lora={rank:4}", *LEARNING)
    card = (folder / "final" / "README.md").read_text()
    assert f"python -m alignbench.commands.merge run={folder}" in card
    assert "```python" not in card
    found = as_the_card_says(merge({"run": str(folder)}))
    torch.testing.assert_close(logits(found["model"], found["tokenizer"]), ours(folder), atol=1e-5, rtol=1e-5)


def test_what_cannot_be_merged_is_refused_in_words(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="trained all weights"):
        merge({"run": str(runs["full"])})
    (tmp_path / "mine").write_text("something of my own")
    with pytest.raises(UserError, match="not empty"):
        merge({"run": str(runs["adapter"]), "to": str(tmp_path)})
    with pytest.raises(UserError, match="finished run"):
        merge({"run": str(tmp_path)})
    for words, told in (
        ([], "run=FOLDER is missing"),
        (["run=x", "dtype=int8"], "dtype=int8"),
        (["runs=x"], "'runs=x'"),
    ):
        with pytest.raises(UserError, match=told):
            _read(words)
