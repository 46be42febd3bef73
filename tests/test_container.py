"""The image is made by the commands that make everything else; nobody builds it here, so what it says is read."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from small_runs import ROOT, SMALL, config, lines, numbers, status

from alignbench.runs.pipeline import run
from alignbench.runs.settings import build, identify, resolve
from analysis.__main__ import main

DOCKERFILE = (ROOT / "Dockerfile").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
BY_HAND = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
"""As if no `make test` were around: what is asked of make here is asked anew."""
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make on this machine")


def make(*words: str) -> list[list[str]]:
    """The commands that make would give, without those that would install."""
    told = subprocess.run(
        ["make", "-n", "-o", ".venv/.runtime", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env=BY_HAND,
    )
    return [shlex.split(line) for line in told.stdout.splitlines()]


def instructions(name: str) -> list[str]:
    """What the Dockerfile says after a word, continued lines joined."""
    whole = DOCKERFILE.replace("\\\n", " ")
    return [line.removeprefix(f"{name} ").strip() for line in whole.splitlines() if line.startswith(f"{name} ")]


def words_of(target: str) -> list[str]:
    """What a target types after `python -m alignbench`."""
    (command,) = make(target)
    assert command[:3] == [".venv/bin/python", "-m", "alignbench"]
    return command[3:]


def test_the_image_is_made_and_run_by_targets_of_the_makefile() -> None:
    typed = [line for line in instructions("RUN") if line.startswith("make ")]
    assert typed == ["make .venv/.runtime"]
    assert instructions("CMD") == ['["make", "study"]']
    checked = (ROOT / ".ci" / "run").read_text().splitlines()
    assert {*typed, "make study"} <= set(checked), "what the image does is what is tried before a change is taken"
    targets = set(re.findall(r"^([\w./-]+):(?!=)", MAKEFILE, re.MULTILINE))
    assert {".venv/.runtime", "study", "build", "run", "train-sft", "train-grpo", "evaluate"} <= targets
    assert make("study")[0][:4] == [".venv/bin/python", "-m", "alignbench", "sweeps=ppo_vs_grpo"]


@pytest.mark.parametrize(("device", "base"), [("cpu", "python:3.11-slim"), ("cuda", "nvidia/cuda:")])
def test_build_says_everything_the_dockerfile_asks_for(device: str, base: str) -> None:
    (command,) = make("build", f"DEVICE={device}")
    given = dict(word.split("=", 1) for flag, word in zip(command, command[1:], strict=False) if flag == "--build-arg")
    assert set(given) == {line.partition("=")[0] for line in instructions("ARG")}
    assert given["DEVICE"] == device
    assert given["BASE"].startswith(base)
    assert command[-3:] == ["-t", f"alignbench-{device}", "."]
    (command,) = make("run", f"DEVICE={device}")
    assert f"alignbench-{device}" in command
    assert ("--gpus" in command) == (device == "cuda")
    assert command[command.index("-v") + 1].endswith(f":{instructions('WORKDIR')[0]}/outputs")


def test_only_the_cpu_is_pinned_to_versions_without_a_gpu() -> None:
    told = {
        device: subprocess.run(
            ["make", "-nB", ".venv/.runtime", f"DEVICE={device}"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
            env=BY_HAND,
        ).stdout
        for device in ("cpu", "cuda")
    }
    assert "-c constraints/cpu.txt -e ." in told["cpu"]
    assert "constraints" not in told["cuda"]
    assert '-e ".[quant]"' in told["cuda"]
    assert "DEVICE=${DEVICE}" in instructions("ENV"), "what is made in the image is made for its device"


def test_the_image_and_the_makefile_name_no_host_and_no_path_of_a_machine() -> None:
    for text in (DOCKERFILE, MAKEFILE):
        assert not re.search(r"https?://(?!127\.0\.0\.1)|\b[\w-]+\.(?:io|com|org|net)\b", text)
        assert not re.search(r"(?<![\w.$)])/(?:home|root|work|Users|mnt|srv|data)\b", text)


def test_what_git_leaves_out_stays_out_of_the_image() -> None:
    ignored = set((ROOT / ".dockerignore").read_text().split("\n"))
    assert ".git" in ignored
    assert {f"**/{line}" for line in (ROOT / ".gitignore").read_text().split()} <= ignored


def test_both_trainings_stand_on_one_sft_model_and_differ_in_the_steps_after_it() -> None:
    sft, grpo = (resolve(config(*words_of(target))) for target in ("train-sft", "train-grpo"))
    assert (build(sft).rl.steps, build(sft).names.method, build(grpo).names.method) == (0, "sft", "grpo")
    changed = {key for key in sft if sft[key] != grpo[key]}
    assert changed == {"rl", "names"}
    assert {**sft["rl"], "steps": 40} == grpo["rl"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What `make train-sft` and `make train-grpo` leave, with a small model and few rows."""
    outputs, found = tmp_path_factory.mktemp("outputs"), {}
    for target in ("train-sft", "train-grpo"):
        small = [word for word in SMALL if not (target == "train-sft" and word.startswith("rl.steps="))]
        cfg = config(*small, *words_of(target), f"output_dir={outputs}", "tracking.enabled=false")
        run(cfg)
        found[target] = identify(cfg).run_dir
    return found


def test_sft_alone_is_measured_and_left_to_be_loaded(trained: dict[str, Path]) -> None:
    folder = trained["train-sft"]
    assert status(folder)["status"] == "finished"
    phases = [(phase, step) for phase, step, _ in numbers(folder)]
    assert phases == [("rl", 0), ("evaluate", 0)]
    end = numbers(folder)[-1][2]
    assert end["final/kl"] == 0
    assert end["final/accuracy"] == end["final/start_accuracy"]
    assert (folder / "final" / "config.json").is_file()
    assert len(lines(folder / "eval.jsonl")) == 6


def test_grpo_starts_from_that_sft_model(trained: dict[str, Path]) -> None:
    first, second = (
        [path.name for path in sorted((folder.parents[2] / "artifacts").iterdir()) if path.is_dir()]
        for folder in trained.values()
    )
    assert first == second
    ends = [numbers(folder)[-1][2] for folder in trained.values()]
    assert ends[0]["final/avg_reward"] == ends[1]["final/start_avg_reward"]


def test_evaluate_writes_their_report(trained: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = make("evaluate")
    assert command[:4] == [".venv/bin/python", "-m", "alignbench", "report"]
    outputs = trained["train-sft"].parents[2]
    words = [word for word in command[4:] if not word.startswith("output_dir=")]
    assert main([*words, f"output_dir={outputs}"]) == 0
    told = capsys.readouterr().out
    assert "GRPO" in told
    assert (outputs / "reports" / "pipeline" / "report.html").is_file()
