"""Plans of runs and studies: counts equal those of the run, memory is close, and no files are left behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import ROOT, SMALL, config, lines, print_plan, run_small, type_in

from alignbench.commands.train import drop_redundant_plan
from alignbench.core.errors import UserError
from alignbench.generation.sampler import Sampler
from alignbench.planning.readiness import check_disk_space, check_tracking
from alignbench.planning.run_plan import RunPlan, shorten_config
from alignbench.runs import analysis_process
from alignbench.runs.settings import build, resolve

PREFERENCES = (
    "data=preferences_toy",
    "reward=bradley_terry",
    "reward_model.steps=2",
    "reward_model.batch_size=8",
    "reward_model.gate=off",
    "data.comparison_rows=40",
)


def make_plan(*words: str) -> RunPlan:
    return RunPlan(resolve(config(*SMALL, *words)))


@pytest.mark.parametrize("words", [["plan=true"], ["plan.probe=true"], ["plan.enabled=true"]])
def test_a_plan_can_be_requested_with_two_spellings(words: list[str]) -> None:
    assert build(resolve(config(*words))).plan.requested
    assert drop_redundant_plan(["algo=ppo", "plan=true", *words][1:]) in (["plan=true", "plan=true"], words)
    assert not build(resolve(config("plan=false"))).plan.requested


@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_counts_of_a_plan_equal_those_of_the_run(tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (f"algo={method}", f"output_dir={tmp_path}", "rl.epochs=2", "rl.steps=3", "eval.samples=4")
    expected = {stage.name: stage for stage in make_plan(*words).expected.stages()}
    generations, generate = list[int](), Sampler.__call__

    def count_generations(sampler: Sampler, prompts: object, group_size: int, seed: int) -> object:
        generations.append(len(prompts) * group_size)  # type: ignore[arg-type]
        return generate(sampler, prompts, group_size, seed)  # type: ignore[arg-type]

    monkeypatch.setattr(Sampler, "__call__", count_generations)
    folder = run_small(tmp_path, *words)
    ledger = json.loads((folder / "manifest.json").read_text())["ledger"]
    rl = expected["rl"]
    assert (rl.prompts, rl.completions) == (ledger["prompts"], ledger["completions"])
    assert ledger["optimizer_steps"] <= rl.optimizer_steps == 12
    assert 0 < ledger["tokens"] <= rl.tokens
    assert expected["evaluation"].completions == sum(generations) - rl.completions
    (artifact,) = [path for path in (tmp_path / "artifacts").glob("sft-????????????") if path.is_dir()]
    assert json.loads((artifact / "cost.json").read_text())["tokens"] == expected["sft"].tokens
    assert [stage.name for stage in make_plan(*words).expected.stages()] == ["rl", "evaluation"], "the SFT model exists"


def test_counts_include_reward_model_training(tmp_path: Path) -> None:
    words = (*PREFERENCES, f"output_dir={tmp_path}")
    plan = make_plan(*words)
    expected = {stage.name: stage for stage in plan.expected.stages()}
    assert {stage.stage for stage in plan.expected.memory()} == {"sft", "reward model", "rl"}
    assert "reward model" in plan.expected.memory()[-1].persistent
    run_small(tmp_path, *words)
    (artifact,) = [path for path in (tmp_path / "artifacts").glob("reward_model-????????????") if path.is_dir()]
    assert json.loads((artifact / "cost.json").read_text())["tokens"] == expected["reward model"].tokens


def test_disk_space_of_a_plan_equals_that_of_the_run(tmp_path: Path) -> None:
    words = (f"output_dir={tmp_path}", "rl.checkpoint_every=1")
    plan = make_plan(*words)
    plan.expected.missing  # noqa: B018  computed before the run creates it
    sizes = plan.expected.disk()
    folder = run_small(tmp_path, *words)
    weights = [file for part in ("checkpoints", "final") for file in (folder / part).rglob("*.safetensors")]
    kept = sum(file.stat().st_size for file in weights)
    assert sizes["checkpoints"] + sizes["the final model"] == pytest.approx(kept, rel=0.25)
    with pytest.raises(UserError, match=r"free disk space.*rl\.checkpoint_every=0"):
        check_disk_space(tmp_path / "deep" / "in", 1 << 60)


def test_all_problems_are_reported_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "in_the_way").write_text("")
    words = [
        f"model.path={tmp_path}/nowhere",
        "data=gsm8k",
        f"data.path={tmp_path}/none.jsonl",
        "judge=gpt4o_mini",
        "reward=custom",
        "reward.function=no.such:function",
        "tracking.uri=http://127.0.0.1:9",
        f"output_dir={tmp_path}/in_the_way/out",
        "plan=true",
    ]
    with pytest.raises(UserError) as error:
        print_plan(config("hardware=cpu", *words))
    problems = [line for line in str(error.value).splitlines() if line.startswith("- ")]
    for name in ("model.path=", "none.jsonl", "OPENAI_API_KEY", "reward.function=", "tracking.uri=", "output_dir="):
        assert sum(name in problem for problem in problems) == 1, name
    assert str(error.value).startswith("found 6 problems:\n")


@pytest.mark.parametrize(
    "word",
    [
        "rl.logits_filter={top_p: 0.9}",
        "eval.logits_filter={top_p: 0.9}",
        "algo.clip_low=7",
        "sft.steps=-1",
        "hardware.threads=0",
        "reward_model.batch_size=0",
        "data.train_rows=-1",
    ],
)
def test_one_invalid_setting_is_the_only_problem_reported(word: str) -> None:
    with pytest.raises(UserError, match=r"^found 1 problem:\n- .*" + word.split(".")[0]):
        print_plan(config("hardware=cpu", word, "plan=true"))


@pytest.mark.parametrize("uri", [None, "sqlite:////tmp/mlflow.db", "file:///tmp/mlruns", "databricks"])
def test_valid_tracking_uris_are_accepted(uri: str | None) -> None:
    check_tracking(uri)


def test_a_probe_times_two_steps_and_leaves_no_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", None)
    print_plan(config(*SMALL, "sft.steps=300", "rl.steps=7000", f"output_dir={tmp_path}/outputs", "plan.probe=true"))
    output = capsys.readouterr().out
    hours = next(line for line in output.splitlines() if line.startswith("  time "))
    assert "sft" in hours
    assert "h" in hours.split(":")[0] or "min" in hours.split(":")[0]
    assert "groups without signal" in output
    assert "after two SFT steps" in output
    assert not list((tmp_path / "temporary").iterdir())
    assert not (tmp_path / "outputs").exists()


def test_a_probe_changes_only_the_number_of_steps(tmp_path: Path) -> None:
    full = resolve(config("algo=ppo", "plan.probe=true"))
    short = shorten_config(full, tmp_path, ("sft",))
    assert (short["rl"]["steps"], short["sft"]["steps"]) == (2, 2)
    assert short["algo"] == full["algo"]
    assert shorten_config(full, tmp_path, ())["sft"] == full["sft"]
    build(short)


def test_the_plan_of_a_study_reports_detectable_effects_and_judge_costs(tmp_path: Path) -> None:
    done = type_in(
        "--multirun",
        "algo=ppo,grpo",
        "seed=1,2,3",
        *SMALL,
        "judge=gpt4o_mini",
        "plan=true",
        "study=s",
        f"output_dir={tmp_path}",
        OPENAI_API_KEY="k",
    )
    assert done.returncode == 0, done.stderr
    assert "plan of study s: 6 runs" in done.stdout
    assert "d >= 3.07" in done.stdout
    assert "gpt-4o-mini-2024-07-18: 36 calls, about $0.0" in done.stdout  # 6 prompts, 3 seeds, 2 orders
    assert "algo.critic.trunk (ppo: shared, grpo: not used)" in done.stdout
    assert not any(tmp_path.rglob("*"))


def test_a_study_without_the_judge_key_fails_before_it_starts(tmp_path: Path) -> None:
    done = type_in(
        "--multirun", "algo=ppo,grpo", "seed=1", *SMALL, "judge=gpt4o_mini", f"output_dir={tmp_path}", OPENAI_API_KEY=""
    )
    assert done.returncode == 2
    assert "OPENAI_API_KEY" in done.stderr
    assert done.stdout == ""
    assert not any(tmp_path.rglob("*.json"))


def test_the_forecast_uses_the_statistics_of_the_report() -> None:
    judge = resolve(config("judge=openai_compatible", "judge.model=m"))["judge"]
    rows = [{"id": str(i), "prompt": "p", "reference": ""} for i in range(5)]
    forecast = analysis_process.forecast(
        {
            "seeds": {"a": [1, 2], "b": [2, 3, 4], "c": [2]},
            "paired": False,
            "judge": judge,
            "prompts": rows,
            "answer_tokens": 10,
        }
    )
    assert [effect["seeds"] for effect in forecast["effects"]] == [[2, 3], [2, 1], [3, 1]]
    assert forecast["effects"][1]["smallest"] is None
    assert forecast["judges"][0]["calls"] == 3 * 5 * 2
    assert forecast["judges"][0]["dollars"] == 0
    assert forecast["problems"] == []


MEASURED = """
import json, sys
from pathlib import Path
from small_runs import config
from alignbench.planning.expected import interpreter_memory
from alignbench.runs.pipeline import run
from alignbench.planning.run_plan import RunPlan
from alignbench.runs.settings import identify, resolve
cfg = config(*sys.argv[1:])
plan = RunPlan(resolve(cfg))
largest = max(plan.expected.memory(), key=lambda stage: stage.peak)
run(cfg)
ledger = json.loads((plan.identity.run_dir / "manifest.json").read_text())["ledger"]
print(json.dumps([largest.peak - interpreter_memory(), ledger["peak_memory_bytes"] - interpreter_memory()]))
"""


def test_planned_memory_is_within_a_quarter_of_the_measured_memory(tmp_path: Path) -> None:
    """With 30 million trainable weights, so that they dominate the memory of the interpreter."""
    words = [
        "hardware=cpu",
        "model.hidden=640",
        "model.layers=6",
        "model.heads=8",
        "model.intermediate=1600",
        "data.demonstration_rows=60",
        "data.train_rows=8",
        "data.validation_rows=2",
        "data.test_rows=2",
        "sft.enabled=false",
        "rl.steps=2",
        "rl.rollouts_per_step=8",
        "rl.max_new_tokens=8",
        "rl.minibatches=1",
        "rl.checkpoint_every=0",
        "eval.every=9",
        "eval.perplexity_rows=0",
        "tracking.enabled=false",
        f"output_dir={tmp_path}",
    ]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT}/tests", "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    estimated, measured = json.loads(done.stdout.splitlines()[-1])
    print(f"estimated {estimated / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB")  # noqa: T201  shown if the test fails
    assert measured > 400e6
    assert estimated == pytest.approx(measured, rel=0.25)
    assert lines(next(tmp_path.rglob("metrics.jsonl")))
