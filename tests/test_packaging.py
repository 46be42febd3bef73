"""The wheel: built, installed elsewhere and used from an empty folder, it brings its configs and no stray names."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from small_runs import SMALL

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


def test_it_runs_a_study_and_writes_its_report_far_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    alignbench = str(installed / "bin" / "alignbench")
    words = ("sweeps=ppo_vs_grpo", "seed=1", "tracking.enabled=false", *SMALL)
    assert "2 of 2 jobs done" in use(installed, tmp_path, alignbench, *words)
    page = tmp_path / "outputs" / "reports" / "ppo_vs_grpo" / "report.html"
    page.unlink()
    use(installed, tmp_path, alignbench, "report", "study=ppo_vs_grpo")
    assert page.is_file()
    page.unlink()
    use(installed, tmp_path, sys.executable, "-m", "alignbench.analysis", "study=ppo_vs_grpo")
    assert page.is_file()
    code = "import alignbench as ab; print(ab.load_study('ppo_vs_grpo').compare('ppo', 'grpo').verdict)"
    assert use(installed, tmp_path, sys.executable, "-c", code).strip() == "inconclusive"


def test_every_import_of_another_package_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [
        line
        for name, lines in project["optional-dependencies"].items()
        if name not in ("dev", "docs")
        for line in lines
    ]
    declared = {normal(re.split(r"[<>=!~\[; ]", line, maxsplit=1)[0]) for line in [*project["dependencies"], *extras]}
    distributions = packages_distributions()
    for package in third_party_imports():
        known = {normal(name) for name in distributions.get(package, [package])}
        assert known & declared, f"{package} is imported and {sorted(known)} not declared in pyproject.toml"


def third_party_imports() -> set[str]:
    """The top-level names that alignbench/ and analysis/ import and that are neither ours nor Python's."""
    found = set()
    for file in [file for folder in ("alignbench", "analysis") for file in (ROOT / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - {"alignbench", "analysis"} - set(sys.stdlib_module_names)


def normal(name: str) -> str:
    """A distribution's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()
