"""Numbers damaged behind a checkpoint are made again, from the checkpoint before it or from the beginning."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_runs import numbers, run_small, status

from alignbench.store.checkpoints import Checkpoints

REWARD = """
def variety(prompts, completions):
    \"\"\"How many different characters were written, so that an untrained model gets different rewards.\"\"\"
    return [float(len(set(text))) for text in completions]
"""


def at_end_of(text: str, change: Callable[[str], str]) -> str:
    """The text with its last line changed."""
    before, last = text[:-1].rsplit("\n", 1)
    return f"{before}\n{change(last)}"


def in_first_line(text: str) -> str:
    first, rest = text.split("\n", 1)
    return f"{first[:-9]}\n{rest}"


DAMAGE: dict[str, tuple[Callable[[str], str], int | None]] = {
    "the last line cut short": (lambda text: text[:-20], 1),
    "the last line gone": (lambda text: at_end_of(text, lambda line: ""), 1),
    "a brace lost": (lambda text: at_end_of(text, lambda line: f"{line[:-1]}\n"), 1),
    "another number": (lambda text: at_end_of(text, lambda line: re.sub(r'(mean": )\d', r"\g<1>9", line) + "\n"), 1),
    "zeros": (lambda text: at_end_of(text, lambda line: "\0" * 50), 1),
    "the first line": (in_first_line, None),
    "all": (lambda text: "", None),
}
"""What happens to metrics.jsonl, and after which step the run then goes on; None is from the beginning."""


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Three steps, a checkpoint after each."""
    reward = tmp_path_factory.mktemp("reward") / "reward.py"
    reward.write_text(REWARD)
    return (
        "algo=grpo",
        "rl.steps=3",
        "rl.checkpoint_every=1",
        "eval.every=3",
        "rl.optimizer.learning_rate=1e-2",
        "data.test_rows=2",
        "data.validation_rows=2",
        "eval.perplexity_rows=2",
        "reward=custom",
        f"reward.function={reward}:variety",
        "study=damaged",
    )


@pytest.fixture(scope="module")
def whole(typed: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was left in peace."""
    return run_small(tmp_path_factory.mktemp("whole"), *typed)


@pytest.fixture(scope="module")
def stopped(typed: tuple[str, ...], whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run that stopped when it had the checkpoints of two steps."""
    outputs, save = tmp_path_factory.mktemp("stopped"), Checkpoints.save
    shutil.copytree(whole.parents[2] / "artifacts", outputs / "artifacts")

    def stop(self: Checkpoints, step: int, payload: dict) -> None:
        save(self, step, payload)
        if step == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            run_small(outputs, *typed)
    return outputs


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_run_ends_as_if_its_numbers_had_not_been_damaged(
    damage: str, typed: tuple[str, ...], whole: Path, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    harm, resumed_after = DAMAGE[damage]
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    (run_dir,) = (tmp_path / "runs" / "damaged").iterdir()
    text = (run_dir / "metrics.jsonl").read_text()
    assert [json.loads(line)["step"] for line in text.splitlines()] == [0, 1, 2]
    (run_dir / "metrics.jsonl").write_text(harm(text))
    assert harm(text) != text

    run_small(tmp_path, *typed)
    told = capsys.readouterr().out
    newest = "training starts over" if resumed_after is None else "the checkpoint before it is used"
    assert re.search(r"warning: .*step-00000002\S+ continues from records that are lost: renamed", told)
    assert newest in told
    assert (f"rl: resuming after step {resumed_after}" in told) == (resumed_after is not None)
    assert status(run_dir)["resumed"] == int(resumed_after is not None)
    assert numbers(run_dir) == numbers(whole)
    for name in ("eval.jsonl", "final/model.safetensors"):
        assert (run_dir / name).read_bytes() == (whole / name).read_bytes()


def test_damage_after_the_newest_checkpoint_costs_no_checkpoint(
    typed: tuple[str, ...], whole: Path, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    (run_dir,) = (tmp_path / "runs" / "damaged").iterdir()
    with (run_dir / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"phase": "rl", "step\n\0\0\0')
    run_small(tmp_path, *typed)
    told = capsys.readouterr().out
    assert "rl: resuming after step 2" in told
    assert "warning" not in told
    assert numbers(run_dir) == numbers(whole)
