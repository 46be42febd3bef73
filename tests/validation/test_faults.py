"""docs/faults.md in small: kills at four points, and runs whose numbers become NaN or Inf.

Kill points are file events, so that they do not depend on the speed of the machine.
"""

import json
import shutil
import signal
from pathlib import Path

import pytest
from small_runs import SMALL, config, lines, numbers, run_small, status

from alignbench.core.errors import InvariantBroken, UserError
from alignbench.kernels.hardware import explain_out_of_memory
from alignbench.runs.settings import identify
from alignbench.store.checkpoints import Checkpoints
from validation.faults.end_state import differences
from validation.faults.kill_points import SECTIONS, KillPoint
from validation.faults.trials import NOTHING, Trials

ROOT = Path(__file__).parents[2]
KILLED_AT = (
    ("SFT artifact being renamed", "checkpoint being renamed", "final model being written"),
    ("MLflow run being created",),
)
METHODS = sorted(path.stem for path in (ROOT / "conf" / "algo").glob("*.yaml"))
EXPLODING = (
    "rl.optimizer.learning_rate=1e30",
    "rl.optimizer.warmup_steps=0",
    "rl.minibatches=1",
    "invariants.first_ratio=off",
    "reward=custom",
)
REWARD = """
def variety(prompts, completions):
    \"\"\"How many different characters were written, so that an untrained model gets different rewards.\"\"\"
    return [len(set(text)) / 100 for text in completions]
"""


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    """Runs of a second each, without their imports."""
    small = (
        "sft.steps=2",
        "reward_model.steps=2",
        "rl.steps=3",
        "rl.checkpoint_every=1",
        "eval.every=3",
        "data.test_rows=4",
        "data.validation_rows=4",
        "eval.perplexity_rows=4",
    )
    return Trials(tmp_path_factory.mktemp("faults"), methods=("grpo",), changes=small)


@pytest.mark.parametrize("names", KILLED_AT, ids=["training", "tracking"])
def test_a_run_killed_repeatedly_ends_as_if_uninterrupted(trials: Trials, names: tuple[str, ...]) -> None:
    output_dir, history = trials.new_output_dir(), trials.histories()["grpo"]
    for section in (section for name in names for section in SECTIONS if section.name == name):
        switch = history.kill_point(section, trials.rng).switch(signal.SIGKILL)
        done = trials.run(trials.words("grpo", output_dir), switch)
        assert done.returncode == -signal.SIGKILL, f"{section.name} was not reached: {done.stdout + done.stderr}"
    trials.finish(trials.words("grpo", output_dir))
    assert trials.lost("grpo", output_dir) == NOTHING


def test_a_difference_is_found(trials: Trials) -> None:
    expected = trials.expected("grpo")
    assert expected["status"] == "finished"
    assert [phase for phase, _ in expected["MLflow runs"]] == ["reward_model", "rl", "sft"]
    assert differences(expected, {**expected, "weights": []}) == ["weights"]


def test_a_kill_point_is_formatted_for_the_kill_switch_and_for_readers() -> None:
    point = KillPoint("rename", "runs/s/ppo-tiny-s1-0123abcd/checkpoints/step-1.HASH.safetensors", 2, 0.0)
    assert json.loads(point.switch(9))["path"].endswith(r"step\-1\.[0-9a-f]{64}\.safetensors")
    assert str(point) == "before rename of `runs/s/ppo-tiny-s1/checkpoints/step-1.safetensors`, time 3"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder, so that the SFT model is made once."""
    return tmp_path_factory.mktemp("outputs")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_resumes_as_if_uninterrupted(
    outputs: Path, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the first of three steps."""
    (tmp_path / "reward.py").write_text(REWARD)
    typed = (
        f"algo={method}",
        "rl.steps=3",
        "rl.checkpoint_every=1",
        "eval.every=3",
        "rl.optimizer.learning_rate=1e-2",
        "data.test_rows=2",
        "data.validation_rows=2",
        "eval.perplexity_rows=2",
        "reward=custom",
        f"reward.function={tmp_path}/reward.py:variety",
    )
    whole = run_small(outputs, *typed, "study=whole")
    save = Checkpoints.save

    def stop(self: Checkpoints, step: int, payload: dict) -> None:
        save(self, step, payload)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        run_small(outputs, *typed, "study=parts")
    monkeypatch.undo()
    parts = outputs / "runs" / "parts" / whole.name
    assert [step for _, step, _ in numbers(parts)] == [0, 1]
    run_small(outputs, *typed, "study=parts")
    assert status(parts)["resumed"] == 1
    assert numbers(parts) == numbers(whole)
    assert numbers(parts)[1][2]["rewards/std"] > 0, "with equal rewards this test would show nothing"
    for name in ("eval.jsonl", "final/model.safetensors"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


def test_a_checkpoint_of_other_conditions_is_refused_by_name(tmp_path: Path) -> None:
    first = run_small(tmp_path, "rl.checkpoint_every=1")
    with pytest.raises(UserError) as error:
        start_with_checkpoints_of(first, tmp_path, "rl.checkpoint_every=1", "seed=7")
    assert "seed (was 42, now 7)" in str(error.value)
    assert "prompt_order" in str(error.value)
    assert "remove that folder" in str(error.value)


def start_with_checkpoints_of(run_dir: Path, output_dir: Path, *typed: str) -> None:
    """Start another run in whose folder the checkpoints of the first one are."""
    folder = identify(config(*SMALL, "tracking.enabled=false", f"output_dir={output_dir}", *typed)).run_dir
    shutil.copytree(run_dir / "checkpoints", folder / "checkpoints")
    run_small(output_dir, *typed)


@pytest.mark.parametrize(
    ("typed", "phase", "step"),
    [
        (("sft.optimizer.learning_rate=1e30", "sft.optimizer.warmup_steps=0", "sft.steps=4"), "sft", 2),
        ((*EXPLODING, "reward.function={tmp}/reward.py:variety"), "rl", 2),
    ],
    ids=["sft", "rl"],
)
def test_nan_and_inf_name_the_step_and_keep_its_batch(
    tmp_path: Path, typed: tuple[str, ...], phase: str, step: int
) -> None:
    (tmp_path / "reward.py").write_text(REWARD)
    typed = tuple(word.replace("{tmp}", str(tmp_path)) for word in typed)
    with pytest.raises(InvariantBroken, match=rf"{phase} step {step}: .* is (nan|inf).*batch of that step is") as error:
        run_small(tmp_path / "outputs", *typed)
    (kept,) = (tmp_path / "outputs").rglob(f"broken-{phase}-*.jsonl")
    assert str(kept) in str(error.value)
    rows = lines(kept)
    assert len(rows) == (8 if phase == "sft" else 16)
    assert all({"prompt", "prompt_tokens", "tokens"} <= row.keys() for row in rows)
    (folder,) = (tmp_path / "outputs" / "runs" / "single").iterdir()
    assert status(folder)["status"] == "failed"
    assert str(kept) in status(folder)["reason"]
    with pytest.raises(InvariantBroken):  # the same command fails at the same step: sampling is deterministic
        run_small(tmp_path / "outputs", *typed)


def test_skipped_updates_are_counted(tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text(REWARD)
    function = f"reward.function={tmp_path}/reward.py:variety"
    folder = run_small(tmp_path, *EXPLODING, "invariants.finite=warn", "rl.steps=3", "eval.every=3", function)
    skipped = [metrics["train/skipped_updates"] for phase, step, metrics in numbers(folder) if phase == "rl" and step]
    assert skipped[0] == 0
    assert sum(skipped) >= 1
    assert status(folder)["status"] == "finished"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_out_of_memory_names_the_settings(error: Exception) -> None:
    with pytest.raises(UserError, match=r"out of memory.*hardware\.tokens_per_microbatch"), explain_out_of_memory():
        raise error
