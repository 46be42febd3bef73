"""Presets: the settings of each, and two steps of each on real rows and a small model of its architecture."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import make_checkpoint
from shared_data import SHARED_DATA, needs_shared
from small_runs import ROOT, config, lines, numbers, print_plan, status

from alignbench.runs.pipeline import run
from alignbench.runs.settings import build, flatten, identify, resolve

DATA = SHARED_DATA
real_rows = needs_shared(
    "gsm8k/train.jsonl.gz", "math/test.jsonl.gz", tests="two steps of each preset on real GSM8K and MATH rows"
)

QWEN_GSM8K = {
    "model.name": "Qwen/Qwen2.5-3B",
    "model.quantization": "nf4",
    "model.lora.rank": 8,
    "model.lora.alpha": 16.0,
    "model.lora.dropout": 0.05,
    "model.lora.targets": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "names.data": "gsm8k",
    "names.reward": "gsm8k_steps",
    "reward.parts.correct.weight": 1.0,
    "reward.parts.steps.weight": 0.5,
    "sft.enabled": False,
    "rl.steps": 312,
    "rl.rollouts_per_step": 64,
    "rl.max_prompt_tokens": 384,
    "rl.max_new_tokens": 384,
    "rl.optimizer.learning_rate": 2e-5,
    "rl.optimizer.weight_decay": 0.01,
    "rl.optimizer.warmup_steps": 100,
    "rl.optimizer.schedule": "cosine",
    "rl.optimizer.max_grad_norm": 1.0,
    "eval.max_new_tokens": 256,
    "eval.decoding": "greedy",
    "analysis.metric": "final/accuracy_flexible",
}
MATH_QA = {
    "model.name": "deepseek-ai/deepseek-math-7b-instruct",
    "model.quantization": "nf4",
    "model.lora.rank": 16,
    "model.lora.alpha": 32.0,
    "model.lora.dropout": 0.05,
    "model.lora.targets": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "names.data": "qa_json",
    "names.reward": "math_heuristic",
    "reward.length": 0.2,
    "reward.formulas": 0.3,
    "reward.concepts": 0.3,
    "reward.structure": 0.2,
    "sft.enabled": False,
    "rl.epochs": 1,
    "rl.minibatches": 1,
    "rl.temperature": 0.8,
    "rl.rollouts_per_step": 2 * 4,
    "rl.max_prompt_tokens": 512,
    "rl.max_new_tokens": 512,
    "rl.optimizer.learning_rate": 1e-5,
    "rl.optimizer.max_grad_norm": 1.0,
    "rl.checkpoint_every": 100,
    "algo.group_size": 4,
    "algo.scale_by_std": True,
    "algo.eps": 1e-8,
    "algo.reduction": "sequence_sum",
    "algo.kl.coef": 0.1,
    "algo.kl.estimator": "k1",
    "algo.kl.placement": "loss",
}
NUMBERS: dict[tuple[str, str], dict[str, Any]] = {
    ("qwen_gsm8k", "ppo"): {
        **QWEN_GSM8K,
        "rl.epochs": 2,
        "rl.minibatches": 1,
        "rl.temperature": 1.0,
        "algo.clip_low": 0.2,
        "algo.clip_high": 0.2,
        "algo.value_clip": 0.2,
        "algo.value_coef": 0.5,
        "algo.entropy_coef": 0.01,
        "algo.gamma": 0.99,
        "algo.lam": 0.95,
        "algo.target_kl": 0.01,
        "algo.kl.coef": 0.2,
        "algo.kl.target": 6.0,
        "algo.kl.unit": "per_sequence",
        "algo.kl.band": 1.5,
        "algo.kl.factor": 1.5,
        "algo.kl.placement": "reward",
    },
    ("qwen_gsm8k", "pairwise"): {
        **QWEN_GSM8K,
        "rl.epochs": 1,
        "rl.temperature": 0.7,
        "algo.group_size": 2 * 4,
        "algo.pairs.link": "linear",
        "algo.pairs.selector": "consecutive",
        "algo.pairs.sure_lead": 0.1,
        "algo.pairs.distinct": True,
        "algo.pairs.beta": None,
        "algo.kl.coef": 0.05,
        "algo.kl.placement": "loss",
    },
    ("qwen_gsm8k_hybrid", "grpo"): {
        "model.name": "Qwen/Qwen3-0.6B",
        "model.quantization": "nf4",
        "model.lora.rank": 16,
        "model.lora.alpha": 32.0,
        "data.train_rows": 1000,
        "reward.correct": 0.6,
        "reward.wrong": 0.2,
        "reward.no_answer": 0.3,
        "reward.length": 0.2,
        "reward.min_characters": 50,
        "reward.indicator": 0.1,
        "reward.max_indicators": 5,
        "reward.steps": 0.3,
        "reward.mark": 0.15,
        "reward.phrase": 0.1,
        "reward.number": 0.1,
        "reward.calculation": 0.1,
        "reward.clip": False,
        "reward.noise_std": 0.0,
        "sft.enabled": False,
        "rl.rollouts_per_step": 8 * 4,
        "rl.max_new_tokens": 128,
        "rl.temperature": 0.7,
        "rl.epochs": 1,
        "rl.minibatches": 1,
        "rl.optimizer.learning_rate": 3e-4,
        "rl.optimizer.max_grad_norm": 0.5,
        "algo.group_size": 4,
        "algo.clip_low": 0.2,
        "algo.clip_high": 0.2,
        "algo.eps": 1e-8,
        "algo.whiten_advantages": True,
        "algo.reduction": "token_mean",
        "algo.kl.coef": 0.1,
        "algo.kl.estimator": "k3",
        "algo.kl.exact_gradient": False,
        "hardware.activation_checkpointing": True,
    },
    ("math_qa", "grpo"): {**MATH_QA, "rl.steps": 3 * 80 // 2},
    ("math_qa_fast_test", "grpo"): {
        **MATH_QA,
        "rl.steps": 80,
        "rl.rollouts_per_step": 1 * 2,
        "algo.group_size": 2,
        "rl.max_prompt_tokens": 256,
        "rl.max_new_tokens": 256,
        "rl.checkpoint_every": 50,
    },
    ("math_qa_full_training", "grpo"): {
        **MATH_QA,
        "rl.steps": 5 * 80 // 4,
        "rl.rollouts_per_step": 4 * 8,
        "algo.group_size": 8,
        "rl.max_prompt_tokens": 1024,
        "rl.max_new_tokens": 1024,
        "rl.optimizer.learning_rate": 5e-6,
        "rl.checkpoint_every": 200,
    },
    ("math_qa_from_sft", "grpo"): {
        **MATH_QA,
        "sft.enabled": True,
        "sft.steps": 3 * 80 // 16,
        "sft.batch_size": 4 * 4,
        "sft.optimizer.learning_rate": 2e-4,
        "rl.steps": 3 * 80 // 2,
        "rl.optimizer.learning_rate": 5e-6,
    },
    ("math_qa_low_memory", "grpo"): {
        **MATH_QA,
        "rl.steps": 3 * 80,
        "rl.rollouts_per_step": 1 * 2,
        "algo.group_size": 2,
        "rl.max_prompt_tokens": 256,
        "rl.max_new_tokens": 256,
        "hardware.microbatch_size": 1,
        "hardware.activation_checkpointing": True,
    },
    ("phi3_math", "pairwise"): {
        "model.name": "microsoft/Phi-3-mini-128k-instruct",
        "model.quantization": "nf4",
        "model.lora.rank": 16,
        "model.lora.alpha": 32.0,
        "model.lora.dropout": 0.05,
        "model.lora.targets": "all-linear",
        "names.data": "math",
        "names.reward": "boxed",
        "data.validation_rows": 20,
        "data.test_rows": 100,
        "sft.enabled": True,
        "sft.steps": 3740,
        "sft.batch_size": 8,
        "sft.optimizer.learning_rate": 2e-4,
        "rl.steps": 100,
        "rl.rollouts_per_step": 8,
        "rl.max_new_tokens": 512,
        "rl.temperature": 0.4,
        "rl.optimizer.learning_rate": 1e-6,
        "rl.optimizer.max_grad_norm": 1.0,
        "eval.decoding": "greedy",
        "algo.group_size": 8,
        "algo.pairs.selector": "winner_vs_all",
        "algo.pairs.win_score": 1.0,
        "algo.pairs.distinct": True,
        "algo.pairs.link": "logistic",
        "algo.pairs.beta": 0.1,
        "algo.pairs.length_normalised": False,
    },
}
of_each = pytest.mark.parametrize(("preset", "algo"), NUMBERS, ids=["-".join(pair) for pair in NUMBERS])


@of_each
def test_the_numbers_of_each_preset(preset: str, algo: str) -> None:
    resolved = resolve(config(f"preset={preset}", f"algo={algo}"))
    build(resolved)
    found, expected = flatten(resolved), NUMBERS[preset, algo]
    assert {key: found.get(key, "no such key") for key in expected} == expected


def test_every_preset_is_in_the_table_or_has_its_own_tests() -> None:
    elsewhere = {"gemma_ultrafeedback", "preference_toy"}
    presets = {path.stem for path in (ROOT / "conf" / "preset").glob("*.yaml")}
    assert {preset for preset, _ in NUMBERS} == presets - elsewhere


# --- two steps of each ----------------------------------------------------------------------------------------------

FAMILIES = {"qwen_gsm8k": "qwen2_5", "qwen_gsm8k_hybrid": "qwen3", "phi3_math": "phi3"}
ARCHITECTURES = {"qwen2_5": "Qwen2", "qwen3": "Qwen3", "phi3": "Phi3", "deepseek_math": "Llama"}
SMALL = (
    "hardware=cpu",
    "tracking.enabled=false",
    "rl.steps=2",
    "rl.max_new_tokens=12",
    "rl.max_prompt_tokens=300",
    "eval.max_new_tokens=12",
    "rl.optimizer.warmup_steps=0",
    "rl.optimizer.learning_rate=1e-2",
    "eval.every=1",
    "eval.perplexity_rows=2",
    "sft.steps=2",
    "sft.batch_size=4",
    "data.train_rows=16",
    "data.validation_rows=2",
    "data.test_rows=2",
)


def family(preset: str) -> str:
    return FAMILIES.get(preset, "deepseek_math")


def rows_of(name: str, count: int = 40) -> list[dict[str, Any]]:
    """The first rows of a real dataset."""
    file = DATA / {"gsm8k": "gsm8k/train.jsonl.gz", "math": "math/test.jsonl.gz"}[name]
    with gzip.open(file, "rt", encoding="utf-8") as stream:
        return [json.loads(next(stream)) for _ in range(count)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A slice of each dataset in a file; of questions with written answers, GSM8K's in their format."""
    folder = tmp_path_factory.mktemp("data")
    known = {name: rows_of(name) for name in ("gsm8k", "math")}
    known["qa_json"] = [
        {"question": row["question"], "answer": row["answer"], "source": "Chapter 2.4"} for row in known["gsm8k"]
    ]
    found = {}
    for name, rows in known.items():
        found[name] = folder / f"{name}.json"
        found[name].write_text(json.dumps(rows), encoding="utf-8")
    return found


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small model of random weights for each family."""
    texts = [row["question"] + row["answer"] for row in rows_of("gsm8k")]
    return {name: make_checkpoint(name, tmp_path_factory.mktemp(name), texts) for name in ARCHITECTURES}


@pytest.fixture
def small(files: dict[str, Path], models: dict[str, Path], tmp_path: Path) -> Callable[[str, str], tuple[str, ...]]:
    """The words for two steps of a preset: two prompts a step, a small model of its family, few real rows."""

    def words(preset: str, algo: str) -> tuple[str, ...]:
        job = build(resolve(config(f"preset={preset}", f"algo={algo}")))
        return (
            *SMALL,
            f"preset={preset}",
            f"algo={algo}",
            f"rl.rollouts_per_step={2 * job.algo.group_size}",
            f"model.path={models[family(preset)]}",
            f"data.path={files[job.names.data]}",
            f"output_dir={tmp_path}",
        )

    return words


@real_rows
@of_each
def test_each_preset_trains_two_steps_on_real_rows_and_its_own_architecture(
    preset: str,
    algo: str,
    small: Callable[[str, str], tuple[str, ...]],
    models: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    kind, words = family(preset), small(preset, algo)
    job = build(resolve(config(*words)))
    print_plan(config(*words, "plan=true"))
    assert f"rl: 2 steps of 2 prompts x {job.algo.group_size} responses" in capsys.readouterr().out
    cfg = config(*words)
    run(cfg)
    folder = identify(cfg).run_dir
    assert status(folder)["status"] == "finished"
    start, first, last = (metrics for phase, _, metrics in numbers(folder) if phase == "rl")
    assert start["eval/kl"] == 0
    assert first["rollout/kl_sequence"] == 0
    assert max(first["train/first_ratio_gap"], first["rollout/sampler_gap"]) < 0.5
    learned = last["budget/optimizer_steps"] > 0
    assert (last["rollout/kl_sequence"] != 0) == learned
    assert learned or last["group_stats/unpaired_fraction"] == 1, "pairs need answers that differ in score"
    rows = lines(folder / "eval.jsonl")
    assert len(rows) == 2
    adapter = json.loads((folder / "final" / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["base_model_name_or_path"]) == (job.model.lora.rank, str(models[kind]))
    assert json.loads((models[kind] / "config.json").read_text())["architectures"] == [
        f"{ARCHITECTURES[kind]}ForCausalLM"
    ]
    made = json.loads((folder / "manifest.json").read_text())["artifacts"]
    assert ("sft" in made) == job.sft.enabled


REWARD = """
def every_second(prompts, completions):
    return [float(i % 2) for i in range(len(completions))]
"""


@real_rows
@pytest.mark.parametrize(("preset", "pairs"), [("qwen_gsm8k", 8), ("phi3_math", 14)])
def test_pairs_change_the_policy_when_answers_differ(
    preset: str, pairs: int, small: Callable[[str, str], tuple[str, ...]], tmp_path: Path
) -> None:
    """Of eight answers every second is right: four pairs of neighbours, or the first right one against seven."""
    (tmp_path / "mine.py").write_text(REWARD)
    cfg = config(*small(preset, "pairwise"), "reward=custom", f"reward.function={tmp_path}/mine.py:every_second")
    run(cfg)
    _, first, last = (metrics for phase, _, metrics in numbers(identify(cfg).run_dir) if phase == "rl")
    assert first["group_stats/pairs"] == pairs
    assert last["budget/optimizer_steps"] == 2
    assert last["rollout/kl_sequence"] != 0
