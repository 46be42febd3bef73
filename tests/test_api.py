"""The Python API: compose, run, load and compare, with the numbers of the run folders and of the report."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from small_runs import SMALL, numbers

import alignbench as ab
from alignbench.runs.analysis_process import report

HEAVY = ("torch", "transformers", "pandas", "numpy", "hydra", "omegaconf", "pydantic", "mlflow", "scipy", "matplotlib")
METHODS, SEEDS = ("ppo", "grpo", "rloo"), (1, 2)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder with a study of three methods and two seeds, scored by a reward that varies."""
    folder = tmp_path_factory.mktemp("outputs")
    (folder / "reward.py").write_text(
        "def variety(prompts, completions):\n    return [len(set(c)) for c in completions]\n"
    )
    for method in METHODS:
        for seed in SEEDS:
            cfg = ab.compose(
                *SMALL,
                "reward=custom",
                f"algo={method}",
                seed=seed,
                study="three",
                output_dir=folder,
                reward={"function": f"{folder}/reward.py:variety"},
                tracking={"enabled": False},
                eval={"decoding": "sampled"},
                **{"rl.optimizer.learning_rate": 1e-2},
            )
            ab.run(cfg)
    return folder


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import sys, alignbench as ab; ab.load_study; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_names_are_importable_and_documented() -> None:
    for name in ab.__all__:
        assert getattr(ab, name).__doc__, name
    assert set(ab.__all__) <= set(dir(ab))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ab.nothing  # noqa: B018


def test_compose_takes_overrides_and_python_values() -> None:
    cfg = ab.compose(
        "algo=ppo",
        model="tiny",
        seed=7,
        study="it's a \\ name",
        rl={"steps": 3},
        eval={"pass_at": [1, 2]},
        **{"rl.temperature": 0.5, "tracking.enabled": False},
    )
    assert cfg.names.method == "ppo"
    assert (cfg.seed, cfg.study, cfg.rl.steps, cfg.rl.temperature) == (7, "it's a \\ name", 3, 0.5)
    assert (list(cfg.eval["pass_at"]), cfg.tracking.enabled) == ([1, 2], False)


def test_compose_finds_options_in_a_folder_of_the_users_own(tmp_path: Path) -> None:
    (tmp_path / "reward").mkdir()
    (tmp_path / "reward" / "mine.yaml").write_text(
        "_target_: alignbench.rewards.exact_match.ExactMatch\nmode: flexible\n"
    )
    cfg = ab.compose("reward=mine", config_dir=tmp_path)
    assert (cfg.names.reward, cfg.reward.mode) == ("mine", "flexible")
    with pytest.raises(ab.UserError, match="no such folder"):
        ab.compose(config_dir=tmp_path / "nothing")


def test_a_value_that_yaml_does_not_have_is_refused() -> None:
    with pytest.raises(ab.UserError, match="seed=.*complex is not a valid config value"):
        ab.compose(seed=1j)


def test_a_plan_is_refused() -> None:
    with pytest.raises(ab.UserError, match="ab.run trains"):
        ab.run(ab.compose("plan.enabled=true"))


def test_a_run_has_the_numbers_of_its_folder(outputs: Path) -> None:
    runs = ab.load_study("three", outputs).runs
    run = ab.load_run(runs.folder[0])
    assert (run.method, run.seed, run.status) == (runs.method[0], runs.seed[0], "finished")
    assert run.config["rl"]["steps"] == 2
    for stage, step, metrics in numbers(run.folder):
        row = run.metrics[(run.metrics.stage == stage) & (run.metrics.step == step)]
        assert {name: row[name].item() for name in metrics} == metrics
    assert run.summary["final/avg_reward"] == runs["final/avg_reward"][0]
    assert {"prompt_id", "prompt", "response", "reward", "tokens", "truncated"} <= set(run.evals.columns)
    assert run.evals.reward.mean() == pytest.approx(run.summary["final/avg_reward"])
    assert "config" not in repr(run)


def test_a_finished_run_is_not_repeated(outputs: Path) -> None:
    run = ab.load_run(ab.load_study("three", outputs).runs.folder[0])
    before = (run.folder / "metrics.jsonl").stat().st_mtime_ns
    from omegaconf import OmegaConf

    again = ab.run(OmegaConf.create(run.config))
    assert again.folder == run.folder
    assert (run.folder / "metrics.jsonl").stat().st_mtime_ns == before


def test_a_run_loads_its_model(outputs: Path) -> None:
    model, tokenizer = ab.load_run(ab.load_study("three", outputs).runs.folder[0]).model()
    assert not model.training
    assert model.config.vocab_size >= len(tokenizer)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ab.UserError, match="no run in this folder"):
        ab.load_run(tmp_path)
    with pytest.raises(ab.UserError, match="no run of this study"):
        ab.load_study("nothing", tmp_path)


def test_the_frames_of_a_study_have_one_row_for_each(outputs: Path) -> None:
    study = ab.load_study("three", outputs)
    assert study.methods == ["ppo", "grpo", "rloo"]
    assert len(study.runs) == 6
    assert set(study.runs.status) == {"finished"}
    assert study.metrics.groupby(["method", "seed"]).size().eq(4).all()
    assert list(study.metrics.columns[:4]) == ["method", "seed", "stage", "step"]
    assert study.evals.groupby(["method", "seed"]).size().eq(6).all()
    means = study.evals.groupby(["method", "seed"]).reward.mean()
    finals = study.runs.set_index(["method", "seed"])["final/avg_reward"]
    pd.testing.assert_series_equal(means, finals.sort_index(), check_names=False)


def test_a_comparison_is_what_the_report_says(outputs: Path) -> None:
    assert report("three", str(outputs)) == 0
    written = json.loads((outputs / "reports" / "three" / "report.json").read_text())
    study = ab.load_study("three", outputs)
    for pair in written["comparisons"]:
        if pair["baseline"] != written["baseline"]:
            continue
        made = study.compare(pair["baseline"], pair["treatment"])
        assert made.metric == pair["metric"]
        assert made.difference == pair["difference"]["estimate"]
        assert list(made.interval or ()) == (pair["difference"]["ci95"] or [])
        assert (made.d, made.g) == (pair["cohens_d"]["estimate"], pair["hedges_g"]["estimate"])
        assert (made.p, made.p_holm, made.verdict) == (pair["welch"]["p"], pair["welch"]["p_holm"], pair["verdict"])
        assert made.level == pytest.approx(1 - 0.05 / 3)
        assert str(made) == made.sentence


def test_the_sign_is_second_minus_first(outputs: Path) -> None:
    study = ab.load_study("three", outputs)
    there, back = study.compare("ppo", "grpo"), study.compare("grpo", "ppo")
    means = study.runs.groupby("method")[there.metric].mean()
    assert there.difference == pytest.approx(means["grpo"] - means["ppo"])
    assert back.difference == -there.difference
    assert there.seeds == (2, 2)


def test_two_methods_have_the_sentence_of_the_report(outputs: Path) -> None:
    study = ab.load_study("three", outputs)
    pair = study.compare("ppo", "grpo", metric="final/avg_response_length", margin=1000.0)
    assert pair.metric == "final/avg_response_length"
    assert pair.margin == 1000.0
    assert pair.sentence


def test_a_comparison_that_does_not_exist_is_refused(outputs: Path) -> None:
    study = ab.load_study("three", outputs)
    with pytest.raises(ab.UserError, match="did you mean 'grpo'"):
        study.compare("ppo", "grppo")
    with pytest.raises(ab.UserError, match="with itself"):
        study.compare("ppo", "ppo")
    with pytest.raises(ab.UserError, match="final/nothing"):
        study.compare("ppo", "grpo", metric="final/nothing")
    with pytest.raises(ab.UserError, match="rewards/mean: methods are compared on a final metric"):
        study.compare("ppo", "grpo", metric="rewards/mean")
    with pytest.raises(ab.UserError, match="above zero"):
        study.compare("ppo", "grpo", margin=-1.0)


def test_the_report_goes_where_it_is_requested(outputs: Path, tmp_path: Path) -> None:
    page = ab.load_study("three", outputs).report(tmp_path / "out")
    assert page == tmp_path / "out" / "report.html"
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written["methods"] == ["ppo", "grpo", "rloo"]


def test_compose_works_more_than_once_in_a_fresh_process() -> None:
    code = "import alignbench as ab; print([ab.compose('algo=grpo', seed=s).seed for s in (1, 2)])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[1, 2]", done.stderr
