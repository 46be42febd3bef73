"""End-to-end runs of a small model: all stages, all files, determinism, interruption and resuming, sweeps."""

import json
import shutil
import signal
from datetime import datetime
from pathlib import Path

import pytest
import torch
import yaml
from mlflow import MlflowClient
from small_runs import SMALL, config, lines, numbers, print_plan, run_small, status, type_in
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignbench.core import metric_names
from alignbench.core.errors import UserError
from alignbench.runs.settings import build, identify, resolve

METHODS = ("ppo", "grpo", "rloo", "dr_grpo")
NAMES = {
    *metric_names.TRAIN,
    *metric_names.REWARDS,
    *metric_names.GROUPS,
    *metric_names.ROLLOUT,
    *metric_names.BUDGET,
    *metric_names.COST,
    *metric_names.EVAL,
    *metric_names.FINAL,
    *metric_names.SFT,
}
REWARD = """
import itertools, os, pathlib, signal

calls = itertools.count(1)

def variety(prompts, completions):
    \"\"\"How many different characters were written, so that even an untrained model gets different rewards.\"\"\"
    fuse = pathlib.Path(__file__).with_name("fuse")
    if fuse.exists() and next(calls) == 5:  # the answers of step 3: after those of steps 0, 1, 2 and the measure at 2
        how = fuse.read_text()
        fuse.unlink()
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise KeyboardInterrupt
    return [float(len(set(text))) for text in completions]
"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One output folder for all that may share one."""
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture
def varied(tmp_path: Path) -> tuple[str, ...]:
    """A reward that tells answers apart, and four steps of it."""
    (tmp_path / "reward.py").write_text(REWARD)
    return (
        "reward=custom",
        f"reward.function={tmp_path}/reward.py:variety",
        "rl.steps=4",
        "rl.checkpoint_every=1",
        "rl.optimizer.learning_rate=1e-2",
    )


@pytest.fixture(scope="module")
def runs(outputs: Path) -> dict[str, Path]:
    """The folder of a finished run of each method, all in one study."""
    made = ["study=four", "tracking.enabled=true", "eval.samples=4", "rl.temperature=0.9"]
    return {method: run_small(outputs, f"algo={method}", *made) for method in METHODS}


@pytest.mark.parametrize("method", METHODS)
def test_a_run_writes_the_documented_files(runs: dict[str, Path], method: str) -> None:
    folder, now = runs[method], status(runs[method])
    assert set(now) == {
        "status",
        "key",
        "study",
        "method",
        "model",
        "seed",
        "started",
        "finished",
        "reason",
        "resumed",
        "determinism",
    }
    assert folder.name == f"{method}-tiny-s42-{now['key'][:8]}"
    assert folder.parent.name == "four"
    told = [now[name] for name in ("status", "study", "method", "model", "seed", "reason", "resumed", "determinism")]
    assert told == ["finished", "four", method, "tiny", 42, None, 0, "bitwise"]
    assert datetime.fromisoformat(now["started"]) <= datetime.fromisoformat(now["finished"])

    kept = yaml.safe_load((folder / "config.yaml").read_text())
    assert set(kept) == {
        "seed",
        "study",
        "output_dir",
        "plan",
        "model",
        "data",
        "reward",
        "algo",
        "hardware",
        "judge",
        "sft",
        "reward_model",
        "rl",
        "eval",
        "invariants",
        "tracking",
        "analysis",
        "names",
    }
    assert identify(kept).key == now["key"]
    assert "${" not in (folder / "config.yaml").read_text()

    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest) >= {
        "versions",
        "git",
        "device",
        "threads",
        "data",
        "prompt_order",
        "artifacts",
        "reward",
        "ledger",
    }
    assert {"python", "alignbench", "torch", "transformers"} <= set(manifest["versions"])
    rows = [manifest["data"][split]["rows"] for split in ("train", "validation", "test")]
    assert rows == [40, 6, 6]
    assert manifest["data"]["name"] == "arithmetic"
    assert len({manifest["data"][split]["sha256"] for split in ("train", "validation", "test")}) == 3
    assert manifest["reward"]["name"] == "exact_match"
    assert set(manifest["ledger"]) == {
        "prompts",
        "completions",
        "tokens",
        "optimizer_steps",
        "flops",
        "seconds",
        "peak_memory_bytes",
    }
    assert manifest["ledger"]["completions"] == 32
    assert manifest["ledger"]["optimizer_steps"] == 4

    log = (folder / "run.log").read_text()
    assert "rl 2/2" in log
    assert "ERROR" not in log


@pytest.mark.parametrize("method", METHODS)
def test_every_metric_is_logged_under_its_name_at_its_step(runs: dict[str, Path], method: str) -> None:
    records = lines(runs[method] / "metrics.jsonl")
    assert [(r["phase"], r["step"]) for r in records] == [("rl", 0), ("rl", 1), ("rl", 2), ("evaluate", 2)]
    assert all(set(r) == {"phase", "step", "time", "metrics"} for r in records)
    start, first, last, end = (r["metrics"] for r in records)
    told = {name for r in records for name in r["metrics"]}
    free = {name for name in told if name.startswith((metric_names.REWARD_COMPONENT, metric_names.PASS_AT))}
    assert told - free <= NAMES
    assert free == {
        "rewards/component/correct_strict",
        "rewards/component/correct_flexible",
        "final/pass_at_1",
        "final/pass_at_4",
    }
    unknown = {
        metric_names.EVAL_GOLD,
        metric_names.FINAL_GOLD,
        metric_names.START_GOLD,
    }  # nobody knows more than what is correct
    assert set(metric_names.EVAL) - unknown <= start.keys() & last.keys()
    assert set(metric_names.FINAL) - unknown <= end.keys()
    assert not unknown & told
    of_pairs = {"group_stats/pairs", "group_stats/unpaired_fraction"}  # of methods that learn from pairs
    assert {
        *metric_names.REWARDS,
        *metric_names.GROUPS,
        *metric_names.ROLLOUT,
        *metric_names.BUDGET,
    } - of_pairs <= first.keys()
    with_critic = {"train/value_loss", "train/value_mean", "train/explained_variance"}
    assert (with_critic <= first.keys()) == (method == "ppo")
    assert not (with_critic & first.keys()) or method == "ppo"
    assert start["eval/kl"] == 0
    assert first["rollout/kl_sequence"] == 0
    assert first["train/first_ratio_gap"] <= 1e-3
    assert first["group_stats/avg_group_size"] == (1 if method == "ppo" else 8)
    assert [r["budget/completions"] for r in (start, first, last)] == [0, 16, 32]


@pytest.mark.parametrize("method", METHODS)
def test_eval_jsonl_has_one_row_per_test_prompt(runs: dict[str, Path], method: str) -> None:
    rows = lines(runs[method] / "eval.jsonl")
    assert [row["prompt_id"] for row in rows] == [f"test-{i}" for i in range(6)]
    for row in rows:
        assert set(row) >= {
            "prompt_id",
            "prompt",
            "response",
            "reference",
            "scores",
            "correct",
            "tokens",
            "truncated",
            "method",
            "seed",
        }
        assert (row["method"], row["seed"]) == (method, 42)
        assert isinstance(row["correct"], bool)
        assert 1 <= row["tokens"] <= 8
        assert set(row["scores"]) == {"total", "correct_strict", "correct_flexible"}
    end = lines(runs[method] / "metrics.jsonl")[-1]["metrics"]
    assert end["final/accuracy"] == sum(row["correct"] for row in rows) / 6
    assert end["final/avg_response_length"] == pytest.approx(sum(row["tokens"] for row in rows) / 6)


def test_transformers_loads_the_final_model(runs: dict[str, Path]) -> None:
    for folder in runs.values():
        model = AutoModelForCausalLM.from_pretrained(folder / "final")
        tokenizer = AutoTokenizer.from_pretrained(folder / "final")
        ids = tokenizer("Tom has 3 pens.", return_tensors="pt").input_ids
        assert model(ids).logits.shape == (1, ids.shape[1], len(tokenizer))
        assert tokenizer.eos_token_id is not None


def test_sft_is_trained_once_and_shared(runs: dict[str, Path], outputs: Path) -> None:
    used = {json.loads((folder / "manifest.json").read_text())["artifacts"]["sft"] for folder in runs.values()}
    (name,) = used
    manifest = json.loads((outputs / "artifacts" / name / "manifest.json").read_text())
    assert manifest["ingredients"]["config"]["sft"]["steps"] == 2
    found = MlflowClient(f"sqlite:///{outputs}/mlflow.db").search_runs(["1"], "tags.phase = 'sft'")
    assert [r.data.tags["key"] for r in found] == [name]
    assert [used.dataset.name for used in found[0].inputs.dataset_inputs] == ["arithmetic demonstrations"]
    starts = [lines(folder / "metrics.jsonl")[0]["metrics"]["eval/perplexity"] for folder in runs.values()]
    assert len(set(starts)) == 1


@pytest.mark.parametrize("method", METHODS)
def test_mlflow_has_the_run_and_each_of_its_metrics(runs: dict[str, Path], outputs: Path, method: str) -> None:
    client, folder = MlflowClient(f"sqlite:///{outputs}/mlflow.db"), runs[method]
    (found,) = client.search_runs(["1"], f"tags.study = 'four' and tags.phase = 'rl' and tags.method = '{method}'")
    assert client.get_experiment("1").name == "alignbench"
    now = status(folder)
    expected = {
        "study": "four",
        "method": method,
        "model": "tiny",
        "seed": "42",
        "phase": "rl",
        "key": now["key"],
        "run_dir": str(folder.resolve()),
    }
    assert {name: found.data.tags[name] for name in metric_names.TAGS} == expected
    assert (found.info.status, found.info.run_name) == ("FINISHED", folder.name)
    assert found.data.params["algo.group_size"] == ("1" if method == "ppo" else "8")
    told = {
        name: {m.step: m.value for m in client.get_metric_history(found.info.run_id, name)}
        for name in found.data.metrics
    }
    kept: dict[str, dict[int, float]] = {}
    for entry in lines(folder / "metrics.jsonl"):
        for name, value in entry["metrics"].items():
            kept.setdefault(name, {})[entry["step"]] = value
    assert told == kept
    assert "eval.jsonl" in [file.path for file in client.list_artifacts(found.info.run_id)]
    assert client.list_artifacts(found.info.run_id, "tables")


def test_a_finished_run_is_not_repeated(
    runs: dict[str, Path], outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (runs["grpo"] / "metrics.jsonl").read_text()
    again = run_small(
        outputs, "algo=grpo", "study=four", "tracking.enabled=true", "eval.samples=4", "rl.temperature=0.9"
    )
    assert again == runs["grpo"]
    assert (again / "metrics.jsonl").read_text() == before
    assert "already finished" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_the_same_seed_gives_the_same_metrics_and_another_seed_others(
    tmp_path: Path, varied: tuple[str, ...], method: str
) -> None:
    one = run_small(tmp_path / "one", f"algo={method}", *varied)
    torch.rand(7)  # whatever was drawn before
    two = run_small(tmp_path / "two", f"algo={method}", *varied)
    other = run_small(tmp_path / "one", f"algo={method}", "seed=43", *varied)
    assert numbers(one) == numbers(two)
    assert [row | {"seed": 0} for row in lines(one / "eval.jsonl")] == [
        row | {"seed": 0} for row in lines(two / "eval.jsonl")
    ]
    assert numbers(one)[0] == numbers(other)[0]
    assert numbers(one)[1] != numbers(other)[1]
    learned = [metrics["rewards/std"] for phase, step, metrics in numbers(one) if phase == "rl" and step]
    assert all(learned), "without different rewards this test would show nothing"
    orders = [json.loads((folder / "manifest.json").read_text())["prompt_order"] for folder in (one, two, other)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_an_interrupted_run_resumes_with_the_metrics_of_an_uninterrupted_one(
    tmp_path: Path, varied: tuple[str, ...], method: str
) -> None:
    whole = run_small(tmp_path / "whole", f"algo={method}", *varied)
    (tmp_path / "fuse").write_text("interrupt")
    reward = (tmp_path / "reward.py").read_text()
    (tmp_path / "reward.py").write_text(reward + f"\n# {method}, loaded anew\n")
    with pytest.raises(KeyboardInterrupt):
        run_small(tmp_path / "parts", f"algo={method}", *varied)
    (parts,) = (tmp_path / "parts" / "runs" / "single").iterdir()
    assert (status(parts)["status"], status(parts)["resumed"]) == ("interrupted", 0)
    assert numbers(parts)[-1][:2] == ("rl", 2)
    run_small(tmp_path / "parts", f"algo={method}", *varied)
    assert (status(parts)["status"], status(parts)["resumed"], status(parts)["reason"]) == ("finished", 1, None)
    assert numbers(parts) == numbers(whole)
    assert (parts / "eval.jsonl").read_text() == (whole / "eval.jsonl").read_text()
    assert (parts / "final" / "model.safetensors").read_bytes() == (whole / "final" / "model.safetensors").read_bytes()


def test_a_killed_run_resumes_with_the_metrics_of_an_uninterrupted_one(
    outputs: Path, tmp_path: Path, varied: tuple[str, ...]
) -> None:
    typed = ["algo=grpo", "study=killed", "tracking.enabled=true", *varied]
    whole = run_small(tmp_path / "whole", *typed, "tracking.enabled=false")
    (tmp_path / "fuse").write_text("kill")
    done = type_in(*SMALL, f"output_dir={outputs}", *typed)
    assert done.returncode == -signal.SIGKILL
    (parts,) = (outputs / "runs" / "killed").iterdir()
    assert status(parts)["status"] == "running"
    run_small(outputs, *typed)
    assert (status(parts)["status"], status(parts)["resumed"]) == ("finished", 1)
    assert numbers(parts) == numbers(whole)
    client = MlflowClient(f"sqlite:///{outputs}/mlflow.db")
    (found,) = client.search_runs(["1"], "tags.study = 'killed' and tags.phase = 'rl'")
    assert found.info.status == "FINISHED"
    steps = [point.step for point in client.get_metric_history(found.info.run_id, "rewards/mean")]
    assert steps == [1, 2, 3, 4]


def test_a_run_that_stops_before_its_final_evaluation_repeats_only_that(
    tmp_path: Path, varied: tuple[str, ...]
) -> None:
    folder = run_small(tmp_path, *varied)
    before, records = numbers(folder), (folder / "metrics.jsonl").read_text()
    now = status(folder)
    (folder / "status.json").write_text(json.dumps({**now, "status": "running"}))
    shutil.rmtree(folder / "final")
    run_small(tmp_path, *varied)
    assert status(folder)["resumed"] == 1
    assert numbers(folder) == before
    assert (folder / "metrics.jsonl").read_text().splitlines()[:-1] == records.splitlines()[:-1]
    assert (folder / "final" / "config.json").is_file()


def test_an_adapter_is_trained_shared_saved_and_resumed(tmp_path: Path, varied: tuple[str, ...]) -> None:
    from peft import PeftModel

    lora = "model.lora={rank:4,alpha:8}"
    folder = run_small(tmp_path, lora, *varied)
    start = numbers(folder)
    assert start[0][2]["eval/kl"] == 0
    assert start[1][2]["rollout/kl_sequence"] == 0
    assert start[4][2]["rollout/kl_sequence"] != 0
    (artifact,) = [path for path in (tmp_path / "artifacts").glob("sft-????????????") if path.is_dir()]
    assert (artifact / "model" / "adapter_config.json").is_file()
    assert (folder / "final" / "adapter_model.safetensors").is_file()
    job = build(resolve(config(*SMALL, lora, *varied)))
    texts = [row["prompt"] + row["completion"] for row in job.data.demonstrations()]
    base, _ = build(resolve(config(*SMALL, *varied))).model.load(texts=texts, start=None, device="cpu", seed=0)
    adapted = PeftModel.from_pretrained(base, folder / "final")
    assert adapted.peft_config["default"].r == 4
    assert AutoTokenizer.from_pretrained(folder / "final").eos_token == "<eos>"

    (tmp_path / "fuse").write_text("interrupt")
    reward = (tmp_path / "reward.py").read_text()
    (tmp_path / "reward.py").write_text(reward + "\n# loaded anew\n")
    with pytest.raises(KeyboardInterrupt):
        run_small(tmp_path, lora, "study=parts", *varied)
    assert numbers(run_small(tmp_path, lora, "study=parts", *varied)) == start


def test_without_sft_a_run_starts_from_the_model_itself(tmp_path: Path, varied: tuple[str, ...]) -> None:
    first = run_small(tmp_path, "sft.enabled=false", *varied)
    assert json.loads((first / "manifest.json").read_text())["artifacts"] == {}
    assert not (tmp_path / "artifacts").exists()
    end = numbers(first)[-1][2]
    going_on = run_small(tmp_path, "sft.enabled=false", f"model.path={first}/final", *varied)
    start = numbers(going_on)[-1][2]
    assert start["final/start_avg_reward"] == end["final/avg_reward"]
    assert start["final/start_avg_response_length"] == end["final/avg_response_length"]


def test_training_maximizes_a_custom_reward(tmp_path: Path, varied: tuple[str, ...]) -> None:
    folder = run_small(tmp_path, *varied, "rl.steps=12", "rl.rollouts_per_step=32", "rl.checkpoint_every=0")
    mean = [metrics["rewards/mean"] for phase, step, metrics in numbers(folder) if phase == "rl" and step]
    assert sum(mean[-3:]) > sum(mean[:3])
    assert {"rewards/component/variety"} <= numbers(folder)[1][2].keys()
    row = lines(folder / "eval.jsonl")[0]
    assert row["correct"] is None
    assert row["scores"] == {"total": len(set(row["response"])), "variety": len(set(row["response"]))}
    assert "final/accuracy" not in numbers(folder)[-1][2]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["reward"]["name"] == "custom"
    assert not (folder / "checkpoints").exists()


def test_a_plan_describes_the_run_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_plan(config(*SMALL, f"output_dir={tmp_path}/outputs", "plan=true"))
    told = capsys.readouterr().out
    assert "40 train, 6 validation, 6 test" in told
    assert "2 steps of 2 prompts x 8 responses, 32 responses in total" in told
    assert "2 steps to train" in told
    assert not list(tmp_path.iterdir())


def test_an_unwritable_folder_fails_the_run_with_its_reason(tmp_path: Path) -> None:
    folder = identify(config(*SMALL, f"output_dir={tmp_path}")).run_dir
    folder.mkdir(parents=True)
    (folder / "checkpoints").write_text("in the way")
    with pytest.raises(UserError, match="checkpoints"):
        run_small(tmp_path)
    assert status(folder)["status"] == "failed"
    assert "output_dir=" in status(folder)["reason"]


def test_a_sweep_continues_after_a_failure_reports_it_and_finishes_when_run_again(outputs: Path) -> None:
    typed = [
        "--multirun",
        "seed=1,2",
        "algo=ppo,grpo",
        "study=sweep",
        "hydra.launcher.n_jobs=2",
        *SMALL,
        f"output_dir={outputs}",
    ]
    for seed in (1, 2):  # what ran alone counts as well
        run_small(outputs, "algo=ppo", f"seed={seed}", "study=sweep", "tracking.enabled=true")
    broken = identify(config(*SMALL, f"output_dir={outputs}", "study=sweep", "seed=1", "algo=grpo")).run_dir
    broken.mkdir(parents=True)
    (broken / "checkpoints").write_text("in the way")
    first = type_in(*typed)
    assert first.returncode == 3, first.stdout + first.stderr
    assert "3 of 4 jobs done" in first.stdout
    assert first.stdout.count("already finished") == 2
    assert "FAILED grpo s1 (exit 2): cannot write to" in first.stdout
    assert "Traceback" not in first.stdout + first.stderr
    planned = json.loads((outputs / "runs" / "sweep" / "study.json").read_text())["planned"]
    ends = {(p["method"], p["seed"]): status(outputs / "runs" / "sweep" / p["run_dir"])["status"] for p in planned}
    assert ends == {("ppo", 1): "finished", ("grpo", 1): "failed", ("ppo", 2): "finished", ("grpo", 2): "finished"}
    report = json.loads((outputs / "reports" / "sweep" / "report.json").read_text())
    assert sorted((r["method"], r["seed"], r["status"]) for r in report["runs"]) == sorted(
        (method, seed, end) for (method, seed), end in ends.items()
    )

    kept = {path: path.stat().st_mtime_ns for path in (outputs / "runs" / "sweep").glob("*/metrics.jsonl")}
    (broken / "checkpoints").unlink()
    second = type_in(*typed)
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stdout.count("already finished") == 3
    assert status(broken)["status"] == "finished"
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items() if path.parent != broken)
    assert (outputs / "reports" / "sweep" / "report.html").is_file()
