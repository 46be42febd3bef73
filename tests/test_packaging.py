"""The wheel: built, installed elsewhere and used from an empty folder, it brings its configs and no stray names."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(target)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    return target


def use(installed: Path, folder: Path, *command: str) -> str:
    """What a command prints when the installed wheel is the only alignbench in sight."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_brings_one_name_with_everything_under_it(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"alignbench", "alignbench-0.1.0.dist-info"}
    for folder, pattern in (("conf", "*.yaml"), ("sweeps", "*.yaml"), ("analysis", "*.py")):
        ours = {f"alignbench/{file.relative_to(ROOT)}" for file in (ROOT / folder).rglob(pattern)}
        assert ours
        assert ours <= set(names)
    assert "alignbench-0.1.0.dist-info/licenses/LICENSE" in names


def test_it_finds_its_configs_far_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = use(installed, tmp_path, sys.executable, "-c", "import alignbench; print(alignbench.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    config = use(installed, tmp_path, sys.executable, "-m", "alignbench", "--cfg", "job")
    assert "seed: 42" in config
    told = use(installed, tmp_path, str(installed / "bin" / "alignbench"), "--help")
    listed = [line.replace(",", " ").split() for line in told.split("Groups")[1].splitlines() if line.strip()]
    options = {group: rest for group, *rest in listed}
    assert "ppo_vs_grpo" in options["sweeps"]
    assert {"ppo", "grpo"} <= set(options["algo"])
    assert list(tmp_path.iterdir()) == []


def test_it_plans_a_study_far_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    words = ("sweeps=ppo_vs_grpo", "seed=42", "algo=ppo", "plan=true")
    assert "plan of study ppo_vs_grpo: 1 run;" in use(installed, tmp_path, sys.executable, "-m", "alignbench", *words)
    use(installed, tmp_path, sys.executable, "-c", "import alignbench.analysis.__main__")
