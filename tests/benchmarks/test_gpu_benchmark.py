"""The GPU benchmark runs on a CPU with tiny shapes: its cells, its messages and its page."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks import lower_bound
from benchmarks.gpu import SHAPES, Machine, cells, main, parse_args

ROOT = Path(__file__).parents[2]
ABSENT = (
    "hydra",
    "omegaconf",
    "mlflow",
    "pydantic",
    "datasets",
    "pyarrow",
    "pandas",
    "scipy",
    "statsmodels",
    "matplotlib",
    "rich",
    "math_verify",
    "bitsandbytes",
    "trl",
)
TINY = ("--device", "cpu", "--shapes", "tiny")


@pytest.fixture(autouse=True)
def short_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lower_bound, "MIN_SECONDS", 1e-4)


@pytest.mark.parametrize("cell", ["qwen2/bf16/grpo", "gemma/bf16/ppo", "gemma/nf4/grpo", "qwen2/nf4/ppo"])
def test_cell_is_measured(tmp_path: Path, cell: str) -> None:
    if "nf4" in cell:
        pytest.importorskip("bitsandbytes")
    (result,) = main(parse_args([*TINY, "--only", cell, "--write", str(tmp_path / "gpu.md")]))
    assert result.tokens == 16 * 8
    assert all(result.step.seconds[part] > result.floor[part].seconds > 0 for part in result.step.seconds)
    assert (result.sampler is not None) == cell.endswith("grpo")
    assert result.shares_prompts, "both architectures support shared prompts"
    assert (tmp_path / "gpu.md").read_text().splitlines()[-1].startswith(f"| {cell} | ")


def test_cells_have_names_and_are_skipped_when_time_is_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(cells(Machine("cuda", "full"), "")) == 12
    assert cells(Machine("cuda", "full"), "gemma-2b/nf4/ppo") == ["gemma-2b/nf4/ppo"]
    assert main(parse_args([*TINY, "--minutes", "0", "--only", "qwen2/bf16"])) == []
    assert capsys.readouterr().out.count("skipped, not enough time left") == 2
    with pytest.raises(SystemExit, match="no such cell; the cells are qwen2/bf16/grpo, "):
        main(parse_args([*TINY, "--only", "llama"]))


@pytest.mark.parametrize(("shape", "millions"), [("qwen2.5-0.5b", 494), ("gemma-2b", 2506), ("qwen2.5-3b", 3086)])
def test_shapes_have_the_sizes_of_the_models(shape: str, millions: int) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**SHAPES["full"][shape]))
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == millions


def test_runs_without_optional_packages() -> None:
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({ABSENT})); from benchmarks.gpu import *; main(parse_args())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *TINY, "--only", "qwen2"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "trl is not installed" in done.stdout
    assert done.stdout.count("skipped, model.quantization=nf4 needs bitsandbytes") == 2
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("| qwen2/")] == [
        "qwen2/bf16/grpo",
        "qwen2/bf16/ppo",
    ]
