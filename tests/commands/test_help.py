"""The command line: every verb explains itself, quickly and without heavy imports; mistakes exit with code 2."""

import os
import subprocess
import sys

import pytest
from small_runs import ROOT, type_in

from alignbench.__main__ import VERBS

HEAVY = ("torch", "transformers", "hydra", "omegaconf", "pandas", "numpy", "scipy", "mlflow", "pydantic", "matplotlib")
CODE = f"""
import atexit, sys
from alignbench.__main__ import main
atexit.register(lambda: sys.stderr.write(str([name for name in {HEAVY} if name in sys.modules])))
main()
"""


def run_python(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("words", [[], *([verb] for verb in VERBS)], ids=lambda words: " ".join(words) or "alignbench")
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_printed_quickly_and_imports_nothing_heavy(words: list[str], flag: str) -> None:
    before = os.times()
    done = run_python(CODE, *words, flag)
    after = os.times()
    assert done.returncode == 0, done.stderr
    assert done.stderr == "[]"
    assert " ".join(["alignbench", *words]) in done.stdout
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    assert seconds < (1.0 if words else 0.5)


def test_help_lists_every_verb_and_group() -> None:
    shown = run_python(CODE, "--help").stdout
    for verb, what in VERBS.items():
        assert f"  {verb:<14}{what}" in shown
    for folder in (ROOT / "conf").iterdir():
        assert folder.is_file() or f"  {folder.name:<10}" in shown


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("sync", "ui")])
def test_a_verb_without_what_it_needs_exits_with_2(verb: str) -> None:
    done = type_in(verb)
    assert done.returncode == 2
    assert done.stderr.startswith(("error: ", "analysis: "))
    assert "--help" in done.stderr


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "sync"])
def test_a_verb_refuses_words_that_it_does_not_know(verb: str) -> None:
    done = type_in(verb, "nonsense=3")
    assert done.returncode == 2
    assert "nonsense" in done.stderr
