"""Real word problems in every stage: with the built-in model, and with a small Gemma in four bits."""

import json
from pathlib import Path

import pytest
from checkpoints import make_checkpoint
from shared_data import SHARED_DATA, needs_shared
from small_runs import config, lines, numbers, print_plan, status

from alignbench.data.gsm8k import GSM8K
from alignbench.runs.pipeline import run
from alignbench.runs.settings import identify

TRAIN = SHARED_DATA / "gsm8k" / "train.jsonl.gz"
TEST = TRAIN.with_name("test.jsonl")
pytestmark = needs_shared(
    "gsm8k/train.jsonl.gz", "gsm8k/test.jsonl", tests="PPO and GRPO in all stages on real GSM8K rows"
)

SMALL = (
    "data=gsm8k",
    f"data.path={TRAIN}",
    "data.train_rows=64",
    "data.validation_rows=8",
    "data.test_rows=8",
    "hardware=cpu",
    "tracking.enabled=false",
    "sft.steps=3",
    "sft.batch_size=8",
    "rl.steps=2",
    "rl.rollouts_per_step=16",
    "rl.max_new_tokens=16",
    "rl.optimizer.warmup_steps=0",
    "eval.perplexity_rows=8",
)
REWARD = """
def variety(prompts, completions, reference):
    assert len(reference) == len(prompts) and all(r.replace(",", "").lstrip("-").isdigit() for r in reference)
    return [float(len(set(text))) for text in completions]
"""


def run_here(output_dir: Path, *overrides: str) -> Path:
    cfg = config(*SMALL, f"output_dir={output_dir}", *overrides)
    run(cfg)
    return identify(cfg).run_dir


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Gemma with a tokenizer trained on word problems."""
    texts = [row["prompt"] + row["completion"] for row in GSM8K(path=str(TRAIN)).demonstrations()[:300]]
    return make_checkpoint("gemma", tmp_path_factory.mktemp("gemma"), texts)


def test_every_row_fits_into_the_context_of_the_built_in_model(capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(config("data=gsm8k", f"data.path={TRAIN}", f"data.test_path={TEST}", "hardware=cpu", "plan=true"))
    assert "7217 train, 256 validation, 1319 test" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_the_built_in_model_runs_every_stage_on_real_rows(tmp_path: Path, method: str) -> None:
    folder = run_here(tmp_path, f"algo={method}")
    assert status(folder)["status"] == "finished"
    end = numbers(folder)[-1][2]
    assert end["final/accuracy"] <= 0.25  # three steps of SFT are not enough to learn reasoning
    assert end["final/perplexity"] > 1
    questions = {json.loads(line)["prompt"] for line in (folder / "eval.jsonl").read_text().splitlines()}
    real = {row["prompt"] for row in GSM8K(path=str(TRAIN), validation_rows=8, test_rows=8).prompts("test")}
    assert questions == real
    data = json.loads((folder / "manifest.json").read_text())["data"]
    assert [data["name"], *(data[split]["rows"] for split in ("train", "validation", "test"))] == ["gsm8k", 64, 8, 8]


@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_a_gemma_in_four_bits_runs_every_stage_on_real_rows(tmp_path: Path, gemma: Path, method: str) -> None:
    (tmp_path / "reward.py").write_text(REWARD)
    folder = run_here(
        tmp_path,
        f"algo={method}",
        "model=gemma2b",
        f"model.path={gemma}",
        "reward=custom",
        f"reward.function={tmp_path}/reward.py:variety",
        "rl.optimizer.learning_rate=1e-2",
    )
    assert status(folder)["status"] == "finished"
    assert folder.name.startswith(f"{method}-gemma2b-s42-")
    start, first, last = (metrics for _, _, metrics in numbers(folder)[:3])
    assert start["eval/kl"] == 0
    assert first["rollout/kl_sequence"] == 0
    assert first["rewards/std"] > 0
    assert last["rollout/kl_sequence"] != 0
    assert max(first["train/first_ratio_gap"], first["rollout/sampler_gap"]) < 0.5
    assert json.loads((folder / "final" / "adapter_config.json").read_text())["r"] == 16
    assert (folder / "final" / "tokenizer.json").is_file()
    assert "warning" not in (folder / "run.log").read_text().lower()


def test_a_gemma_is_evaluated_by_the_number_at_the_end(tmp_path: Path, gemma: Path) -> None:
    folder = run_here(tmp_path, "model=gemma2b", f"model.path={gemma}", "model.dtype=bfloat16", "eval.samples=4")
    end = numbers(folder)[-1][2]
    assert end["final/accuracy"] <= 0.25
    assert 0 <= end["final/pass_at_1"] <= end["final/pass_at_4"] <= 1
    rows = lines(folder / "eval.jsonl")
    assert all(row["reference"] and isinstance(row["correct"], bool) for row in rows)
    assert all("<start_of_turn>" not in row["response"] for row in rows)
