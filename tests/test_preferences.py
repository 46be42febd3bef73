"""From preference pairs to a policy: SFT, the reward model that all runs share, RL against it, and the true quality."""

import json
import math
from pathlib import Path

import pytest
from small_runs import SMALL, config, lines, numbers, run_small, status

from alignbench.commands.compare import compare
from alignbench.core.errors import UserError
from alignbench.runs.pipeline import run

PREFERENCES = (
    "data=preferences_toy",
    "reward=bradley_terry",
    "data.comparison_rows=40",
    "data.held_out_comparison_rows=20",
    "reward_model.steps=3",
    "reward_model.batch_size=8",
    "reward_model.gate=warn",
    "eval.decoding=sampled",
)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def runs(outputs: Path) -> dict[str, Path]:
    return {method: run_small(outputs, *PREFERENCES, f"algo={method}", "study=two") for method in ("ppo", "grpo")}


def test_all_runs_share_one_sft_model_and_one_reward_model(outputs: Path, runs: dict[str, Path]) -> None:
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in runs.values()]
    assert manifests[0]["artifacts"] == manifests[1]["artifacts"]
    assert set(manifests[0]["artifacts"]) == {"sft", "reward_model"}
    made = {path.name for path in (outputs / "artifacts").iterdir() if path.is_dir() and "." not in path.name}
    assert made == set(manifests[0]["artifacts"].values())
    manifest = json.loads(
        (outputs / "artifacts" / manifests[0]["artifacts"]["reward_model"] / "manifest.json").read_text()
    )
    assert manifest["parents"] == [manifests[0]["artifacts"]["sft"]]
    assert manifests[0]["reward"] == manifests[1]["reward"]
    for costs in manifests[0]["artifact_costs"].values():
        assert costs["seconds"] > 0
        assert costs["tokens"] > 0
    assert (outputs / "artifacts" / f"{manifests[0]['artifacts']['reward_model']}.tracking" / "metrics.jsonl").is_file()


@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_proxy_score_and_true_quality_are_both_logged(runs: dict[str, Path], method: str) -> None:
    assert status(runs[method])["status"] == "finished"
    shown = {step: metrics for phase, step, metrics in numbers(runs[method]) if phase == "rl"}
    for step in (0, 2):
        assert {
            "eval/gold",
            "eval/avg_reward",
            "eval/kl",
            "eval/kl_token",
            "eval/empty_fraction",
            "eval/repeated_fraction",
        } <= shown[step].keys()
    assert "rewards/component/reward_model" in shown[1]
    end = numbers(runs[method])[-1][2]
    rows = lines(runs[method] / "eval.jsonl")
    assert end["final/gold"] == pytest.approx(sum(row["scores"]["gold"] for row in rows) / len(rows))
    assert end["final/avg_reward"] == pytest.approx(sum(row["scores"]["total"] for row in rows) / len(rows))
    strata = {row["stratum"] for row in rows}
    assert {name for name in end if name.startswith("final/stratum/") and name.endswith("/gold")} == {
        f"final/stratum/{stratum}/gold" for stratum in strata
    }
    card = json.loads((runs[method] / "manifest.json").read_text())["reward_model"]
    assert 0 <= card["accuracy"] <= 1
    assert card["pairs"] == 20


def test_scores_are_standardised_by_the_validation_pairs(runs: dict[str, Path]) -> None:
    card = json.loads((runs["ppo"] / "manifest.json").read_text())["reward_model"]
    for row in lines(runs["ppo"] / "eval.jsonl"):
        expected = (row["scores"]["reward_model"] / card["temperature"] - card["mean"]) / card["std"]
        assert row["scores"]["total"] == pytest.approx(expected, abs=1e-5)


def test_a_trained_reward_model_is_loaded_from_its_folder(outputs: Path, runs: dict[str, Path], tmp_path) -> None:
    made = json.loads((runs["grpo"] / "manifest.json").read_text())["artifacts"]["reward_model"]
    folder = run_small(tmp_path, *PREFERENCES, f"reward.path={outputs}/artifacts/{made}/model")
    assert set(json.loads((folder / "manifest.json").read_text())["artifacts"]) == {"sft"}
    assert numbers(folder)[-1] == numbers(runs["grpo"])[-1]


def test_a_run_is_compared_with_its_start_by_its_reward_model(runs: dict[str, Path], tmp_path: Path) -> None:
    folder = compare([f"after={runs['ppo']}", f"to={tmp_path}"])
    drawn, kept = lines(folder / "after.jsonl"), lines(runs["ppo"] / "eval.jsonl")
    assert [row["scores"] for row in drawn] == [row["scores"] for row in kept]
    manifests = json.loads((folder / "settings.json").read_text())
    assert manifests["reward_sha256"] == json.loads((runs["ppo"] / "manifest.json").read_text())["reward"]["sha256"]


@pytest.mark.parametrize("model", [(), ("+model.lora.rank=4",)])
def test_a_critic_can_start_as_the_reward_model(outputs: Path, runs: dict[str, Path], model: tuple[str, ...]) -> None:
    folder = run_small(
        outputs,
        *PREFERENCES,
        *model,
        "algo=ppo",
        "algo.critic.trunk=separate",
        "algo.critic.start=reward_model",
        "algo.critic.hidden=0",
    )
    first, plain = ({step: m for phase, step, m in numbers(run) if phase == "rl"}[1] for run in (folder, runs["ppo"]))
    assert plain["train/value_mean"] == 0
    assert abs(first["train/value_mean"]) > 0.01
    assert first["budget/flops"] > plain["budget/flops"]
    assert not list((folder / "final").glob("**/critic"))


@pytest.mark.parametrize("how", ["phased", "adaptive"])
def test_kl_controllers_normalizer_and_weight_selection_in_a_run(outputs: Path, how: str) -> None:
    more = ["algo.kl.action=stop", "algo.kl.values=[0.0]", "algo.kl.boundaries=[]", "algo.kl.coef=0"]
    folder = run_small(
        outputs,
        *PREFERENCES,
        f"algo/kl={how}",
        "algo/normalizer=ema",
        "eval.select=perplexity",
        "rl.steps=4",
        "rl.missing_eos_penalty=1.0",
        "rl.optimizer.learning_rate=1e-3",
        "rl.optimizer.warmup_steps=0",
        "eval.every=1",
        *(more if how == "phased" else ["algo.kl.target=1e-3", "algo.kl.horizon=100"]),
    )
    shown = {step: metrics for phase, step, metrics in numbers(folder) if phase == "rl"}
    manifest = json.loads((folder / "manifest.json").read_text())
    best = min((m["eval/perplexity"], step) for step, m in shown.items() if step)[1]
    assert manifest["selected_step"] == best
    drift = [shown[step]["rollout/kl_sequence"] for step in sorted(shown) if step]
    if how == "phased":
        assert [kl > 0 for kl in drift] == [False] * (len(drift) - 1) + [True]
    else:
        coefs = [shown[step]["train/kl_coef"] for step in (1, 2, 3, 4)]
        assert coefs[0] == 0.2
        assert [b > a for a, b in zip(coefs, coefs[1:], strict=False)] == [kl > 1e-3 for kl in drift[:3]]
    kept = numbers(folder)[-1][2]["final/perplexity"]
    assert math.isclose(kept, shown[best]["eval/perplexity"], rel_tol=1e-5)


def test_rows_that_are_too_long_are_an_error_or_dropped(tmp_path: Path) -> None:
    lengths = ["rl.max_prompt_tokens=20", "sft.max_tokens=50", "reward_model.max_tokens=50"]
    for knob in ("rl.max_prompt_tokens=19", "sft.max_tokens=50", "reward_model.max_tokens=50"):
        with pytest.raises(UserError, match=knob.partition("=")[0].replace("rl.", "")):
            run(config(*SMALL, *PREFERENCES, knob, f"output_dir={tmp_path}"))
    assert not (tmp_path / "artifacts").exists(), "manifests before anything is trained"
    drop = ["rl.too_long=drop", "sft.too_long=drop", "reward_model.too_long=drop"]
    folder = run_small(tmp_path, *PREFERENCES, *lengths, *drop)
    data = json.loads((folder / "manifest.json").read_text())["data"]
    assert data["notes"]["train prompts too long"] + data["train"]["rows"] == 40
    assert data["train"]["rows"] > 0


def test_a_dataset_without_preference_pairs_has_no_reward_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no preference pairs"):
        run(config(*SMALL, "reward=bradley_terry", f"output_dir={tmp_path}"))
