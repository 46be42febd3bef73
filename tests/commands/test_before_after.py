"""Tests of `alignbench compare`, end to end: two models answer the same prompts; a model equals itself."""

import json
from pathlib import Path

import pytest
from small_runs import lines, run_small

from alignbench.commands.compare import _changed, _read, compare
from alignbench.core.errors import UserError
from alignbench.runs.completed_run import CompletedRun
from analysis.before_after.__main__ import main

REWARD = "def variety(prompts, completions):\n    return [float(len(set(text))) for text in completions]\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose weights changed in a few steps with a large learning rate."""
    folder = tmp_path_factory.mktemp("outputs")
    (folder / "reward.py").write_text(REWARD)
    return run_small(
        folder,
        "reward=custom",
        f"reward.function={folder}/reward.py:variety",
        "rl.optimizer.learning_rate=1e-2",
        "rl.optimizer.warmup_steps=0",
        "rl.steps=6",
        "rl.rollouts_per_step=32",
    )


def test_a_run_stores_the_answers_of_its_start(trained: Path) -> None:
    assert main([f"run={trained}"]) == 0
    result = json.loads((trained / "before_after.json").read_text())
    end = lines(trained / "metrics.jsonl")[-1]["metrics"]
    reward = result["scores"]["avg_reward"]
    assert reward["before_mean"] == pytest.approx(end["final/start_avg_reward"])
    assert reward["after_mean"] == pytest.approx(end["final/avg_reward"])
    assert reward["before_mean"] != reward["after_mean"]
    assert result["total_problems"] == 6


def test_compare_reproduces_the_stored_answers(trained: Path, tmp_path: Path) -> None:
    folder = compare([f"after={trained}", f"to={tmp_path}"])
    for side, stored in (("before", "eval_start"), ("after", "eval")):
        got, run = lines(folder / f"{side}.jsonl"), lines(trained / f"{stored}.jsonl")
        assert [(row["response"], row["scores"]) for row in got] == [(row["response"], row["scores"]) for row in run]


def test_several_answers_to_other_prompts_under_another_reward(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text(
        "".join(json.dumps({"prompt": f"{n} + {n} = ?", "reference": str(2 * n)}) + "\n" for n in range(5))
    )
    folder = compare(
        [
            f"after={trained}/final",
            "before=base",
            f"prompts={tmp_path}/mine.jsonl",
            "samples=3",
            "reward=exact_match",
            "reward.mode=flexible",
            "eval.temperature=0.7",
            f"to={tmp_path}/out",
        ]
    )
    before, after = (lines(folder / f"{side}.jsonl") for side in ("before", "after"))
    expected = [(f"prompt-{number}", sample) for number in range(5) for sample in range(3)]
    assert [(row["prompt_id"], row["sample"]) for row in before] == expected
    assert [row["prompt"] for row in before] == [row["prompt"] for row in after]
    assert {row["model"] for row in before} == {"base tiny"}
    assert [row["response"] for row in before] != [row["response"] for row in after]
    assert set(before[0]["scores"]) == {"total", "correct_strict", "correct_flexible"}
    result = json.loads((folder / "settings.json").read_text())
    assert (result["decoding"], result["reward"]) == ("sampled, temperature 0.7, seed 0", "exact_match")
    assert main([f"before={folder}/before.jsonl", f"after={folder}/after.jsonl"]) == 0
    whole = json.loads((folder / "before_after.json").read_text())
    assert (whole["samples"], whole["settings"]) == (3, result)


def test_a_model_is_not_better_than_itself(trained: Path, tmp_path: Path) -> None:
    folder = compare([f"after={trained}", f"before={trained}/final", "samples=2", f"to={tmp_path}"])
    assert main([f"before={folder}/before.jsonl", f"after={folder}/after.jsonl"]) == 0
    result = json.loads((folder / "before_after.json").read_text())["scores"]["avg_reward"]
    assert result["improvement"] == {"estimate": 0.0, "ci95": None, "reason": "constant_difference"}
    assert result["problems_equal"] == 6
    for changed in ("problems_improved", "problems_worsened"):
        low, high = result[changed]["share"]["ci95"]
        assert low == result[changed]["count"] == 0 < high < 0.5


def test_weights_by_run_folder_and_name(trained: Path, tmp_path: Path) -> None:
    run = CompletedRun.open(str(trained))
    assert run.weights("base").start is None
    start = run.weights("start").start
    assert start is not None
    assert (start / "config.json").is_file()
    assert run.weights(str(trained)) == run.weights(str(trained / "final"))
    assert run.weights(str(start)).start == start
    with pytest.raises(UserError, match="neither a run nor a model"):
        run.weights(str(tmp_path))
    with pytest.raises(UserError, match="before=start or before=base"):
        run.weights("no such model")
    with pytest.raises(UserError, match="finished run"):
        CompletedRun.open(str(tmp_path))


@pytest.mark.parametrize("words", [["after=x", "rl.steps=3"], ["after=x", "model=tiny"], ["before=x"], ["after"]])
def test_an_unused_key_is_an_error(words: list[str]) -> None:
    with pytest.raises(UserError, match="--help"):
        _read(words)


def test_an_unknown_key_is_an_error(trained: Path) -> None:
    config = _changed(CompletedRun.open(str(trained)).config, ["reward=exact_match", "reward.moode=flexible"])
    with pytest.raises(UserError, match=r"reward\.moode; did you mean reward\.mode"):
        _ = CompletedRun(trained, config, {}).job
    with pytest.raises(UserError, match="samples=none"):
        compare([f"after={trained}", "samples=none"])


def test_duplicate_prompt_ids_are_an_error(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "twice.jsonl").write_text('{"id": 1, "prompt": "a"}\n{"id": 1, "prompt": "b"}\n')
    with pytest.raises(UserError, match="duplicate id 1"):
        compare([f"after={trained}", f"prompts={tmp_path}/twice.jsonl"])
