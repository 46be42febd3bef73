"""The benchmark for a GPU runs on a CPU with tiny shapes: every cell, the engine in it, and the page it makes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks import lower_bound
from benchmarks.gpu import SHAPES, Machine, cells, main, words

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
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lower_bound, "ENOUGH", 1e-4)


@pytest.mark.parametrize("cell", ["qwen2/bf16/grpo", "gemma/bf16/ppo", "gemma/nf4/grpo", "qwen2/nf4/ppo"])
def test_a_cell(tmp_path: Path, cell: str) -> None:
    if "nf4" in cell:
        pytest.importorskip("bitsandbytes")
    (found,) = main(words([*TINY, "--only", cell, "--write", str(tmp_path / "gpu.md")]))
    assert found.tokens == 16 * 8
    assert all(found.step.seconds[part] > found.floor[part].seconds > 0 for part in found.step.seconds)
    assert (found.alone is not None) == cell.endswith("grpo")
    assert found.shared, "both architectures take several answers behind one prompt"
    assert (tmp_path / "gpu.md").read_text().splitlines()[-1].startswith(f"| {cell} | ")


def test_all_cells_have_a_name_and_time_up_leaves_them_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(cells(Machine("cuda", "full"), "")) == 12
    assert cells(Machine("cuda", "full"), "gemma-2b/nf4/ppo") == ["gemma-2b/nf4/ppo"]
    assert main(words([*TINY, "--minutes", "0", "--only", "qwen2/bf16"])) == []
    assert capsys.readouterr().out.count("left out, for the time is up") == 2
    with pytest.raises(SystemExit, match="no such cell; there are qwen2/bf16/grpo, "):
        main(words([*TINY, "--only", "llama"]))


@pytest.mark.parametrize(("shape", "millions"), [("qwen2.5-0.5b", 494), ("gemma-2b", 2506), ("qwen2.5-3b", 3086)])
def test_the_shapes_are_those_of_the_models(shape: str, millions: int) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**SHAPES["full"][shape]))
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == millions


def test_it_needs_no_more_than_it_says() -> None:
    program = f"import sys; sys.modules.update(dict.fromkeys({ABSENT})); from benchmarks.gpu import *; main(words())"
    done = subprocess.run(
        [sys.executable, "-c", program, *TINY, "--only", "qwen2"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "trl is not installed" in done.stdout
    assert done.stdout.count("left out, model.quantization=nf4 needs bitsandbytes") == 2
    assert [line.split()[1] for line in done.stdout.splitlines() if line.startswith("| qwen2/")] == [
        "qwen2/bf16/grpo",
        "qwen2/bf16/ppo",
    ]
