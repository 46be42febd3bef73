"""The hash of the source: arithmetic changes it, comments and docstrings do not; it is read from a cache."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from alignbench.runs.settings import identify, resolve
from alignbench.runs.shared_models import LIBRARIES, LOADING, SharedModels
from alignbench.store import source_hash as hashing
from alignbench.store.source_hash import LAYERS, ROOT, source_hash

STAGE = ("alignbench.stages.sft", *LOADING)


@pytest.fixture
def hash_after(tmp_path: Path) -> Callable[..., str]:
    """Hashes a copy of the package in which a text was replaced."""
    root = tmp_path / "alignbench"
    for layer in LAYERS:
        shutil.copytree(ROOT / layer, root / layer, ignore=shutil.ignore_patterns("__pycache__"))

    def change(file: str = "", old: str = "", new: str = "", stage: tuple[str, ...] = STAGE) -> str:
        text = (root / file).read_text() if file else ""
        assert text.count(old) > 0 or not file
        if file:
            (root / file).write_text(text.replace(old, new, 1))
        source_hash.cache_clear()
        found = source_hash(stage, root)
        if file:
            (root / file).write_text(text)
        return found

    return change


def test_a_changed_line_of_arithmetic_changes_the_hash(hash_after: Callable[..., str]) -> None:
    before = hash_after()
    assert before != hash_after("engine/optimizer.py", "return 1.0", "return 0.5")
    assert before != hash_after("kernels/logprobs.py", "import torch", "import torch\n\nFACTOR = 2")
    assert before != hash_after("models/tiny.py", "import", "import os\nimport")
    assert before == hash_after()


def test_comments_docstrings_and_formatting_do_not_change_it(hash_after: Callable[..., str]) -> None:
    before = hash_after()
    file = "engine/optimizer.py"
    assert before == hash_after(file, "return 1.0", "return 1.0  # a comment")
    assert before == hash_after(file, '"""', '"""Another docstring. ')
    assert before == hash_after(file, "return 1.0", "return (\n            1.0\n        )")
    assert before == hash_after(file, "    def scale(", '    """A string below a field."""\n\n    def scale(')


def test_only_what_the_stage_imports_counts(hash_after: Callable[..., str]) -> None:
    preferences = ("alignbench.stages.reward_model", *LOADING)
    change = ("equations/pairs.py", "from torch", "FACTOR = 2\nfrom torch")
    assert hash_after() == hash_after(*change)
    assert hash_after(stage=preferences) != hash_after(*change, stage=preferences)
    assert hash_after() == hash_after("stages/online.py", "import", "import os\nimport")


def test_the_hash_is_cached(hash_after: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    first = hash_after()
    monkeypatch.setattr(hashing, "_hash", lambda modules, texts: pytest.fail("parsed again"))
    began = time.process_time()
    assert hash_after() == first
    assert time.process_time() - began < 0.1


def test_keys_name_source_and_libraries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from small_runs import SMALL, config

    from alignbench.runs.run_data import RunData
    from alignbench.runs.settings import build

    plain = resolve(config(*SMALL, f"output_dir={tmp_path}"))
    settings = build(plain)
    shared = SharedModels(settings, plain, identify(plain), RunData(settings))
    code = shared._sft_ingredients()["code"]
    assert set(code["libraries"]) == set(LIBRARIES)
    assert all(code["libraries"].values())
    before = shared.sft_key()
    monkeypatch.setattr("alignbench.runs.shared_models.versions", lambda: dict.fromkeys(LIBRARIES, "9.9"))
    assert shared.sft_key() != before
