"""The Gemma preset on real preference pairs: a small Gemma in four bits, every stage, both methods."""

import json
import re
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from shared_data import SHARED_DATA, needs_shared
from small_runs import config, lines, numbers, print_plan, status

from alignbench.data.ultrafeedback import UltraFeedback
from alignbench.runs.pipeline import run
from alignbench.runs.run_data import RunData
from alignbench.runs.settings import build, identify, resolve

SAMPLE = SHARED_DATA / "ultrafeedback_sample"
pytestmark = needs_shared(
    "ultrafeedback_sample", tests="preset=gemma_ultrafeedback in all stages on the real UltraFeedback sample"
)
METHODS = ("ppo", "grpo")
SMALL = (
    "preset=gemma_ultrafeedback",
    f"data.path={SAMPLE}",
    "hardware=cpu",
    "tracking.enabled=false",
    "data.train_rows=96",
    "data.validation_rows=16",
    "data.test_rows=12",
    "sft.steps=2",
    "sft.batch_size=4",
    "sft.max_tokens=600",
    "reward_model.steps=2",
    "reward_model.max_tokens=600",
    "reward_model.gate=warn",
    "rl.steps=2",
    "rl.rollouts_per_step=12",
    "rl.max_prompt_tokens=300",
    "rl.max_new_tokens=12",
    "rl.optimizer.warmup_steps=0",
    "rl.optimizer.learning_rate=1e-2",
    "eval.every=1",
    "eval.perplexity_rows=4",
    "model.dtype=bfloat16",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    outputs = tmp_path_factory.mktemp("outputs")
    rows = UltraFeedback(path=str(SAMPLE), train_rows=200).demonstrations()
    texts = [row["prompt"] + row["completion"] for row in rows]
    gemma = make_checkpoint("gemma", tmp_path_factory.mktemp("gemma"), texts)
    found = {}
    for method in METHODS:
        cfg = config(*SMALL, f"model.path={gemma}", f"algo={method}", f"output_dir={outputs}", "study=gemma")
        run(cfg)
        found[method] = identify(cfg).run_dir
    return found


@pytest.mark.parametrize("method", METHODS)
def test_every_stage_runs_on_real_preference_pairs(runs: dict[str, Path], method: str) -> None:
    folder = runs[method]
    assert status(folder)["status"] == "finished"
    start, first, last = (metrics for _, _, metrics in numbers(folder)[:3])
    assert start["eval/kl"] == 0
    assert first["rollout/kl_sequence"] == 0
    assert first["train/kl_coef"] == last["train/kl_coef"] == 0
    assert last["rollout/kl_sequence"] != 0
    assert max(first["train/first_ratio_gap"], first["rollout/sampler_gap"]) < 0.5
    assert 1 <= first["train/score_mean"] <= 5 or method == "ppo"
    assert ("train/value_loss" in first) == (method == "ppo")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["data"]["notes"]["dropped: both scores equal"] == 134
    assert manifest["data"]["notes"]["train prompts too long"] > 0
    assert manifest["selected_step"] in (1, 2)
    assert {row["stratum"] for row in lines(folder / "eval.jsonl")} <= {"factual", "instruction", "creative"}
    assert json.loads((folder / "final" / "adapter_config.json").read_text())["r"] == 16


def test_both_methods_are_scored_by_the_same_reward_model(runs: dict[str, Path]) -> None:
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in runs.values()]
    assert manifests[0]["artifacts"] == manifests[1]["artifacts"]
    assert manifests[0]["reward"] == manifests[1]["reward"]
    assert manifests[0]["reward_model"] == manifests[1]["reward_model"]
    assert 0 <= manifests[0]["reward_model"]["accuracy"] <= 1


def test_sft_can_train_on_scores_in_place_of_answers(tmp_path: Path) -> None:
    tiny = ("model=tiny", "model.context=4096", "reward_model.lora=null", "hardware=cpu", f"output_dir={tmp_path}")
    cfg = config("preset=gemma_ultrafeedback", f"data.path={SAMPLE}", "sft.format=genrm", "plan=true", *tiny)
    print_plan(cfg)
    rows = RunData(build(resolve(cfg))).demonstrations
    assert len(rows) == 840
    assert all(
        re.fullmatch(r"Score: \d+\.\d/10\. The response is helpful, harmless, and honest\.", row["completion"])
        for row in rows
    )
    assert all(row["prompt"].endswith("Analyze the quality of this response.") for row in rows)
