"""Loading never executes code: models with custom code raise, and pickled weights are not read."""

import json
from pathlib import Path

import pytest

from alignbench.core.errors import UserError
from alignbench.models.loading import Pretrained

TRAP = """
from pathlib import Path
Path(__file__).with_name("was_run").write_text("")
Path({marker!r}).write_text("")
"""


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A model folder with its architecture in a Python file, which records when it is executed."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "odd.py").write_text(TRAP.format(marker=str(tmp_path / "was_run")))
    auto = {"AutoConfig": "odd.Odd", "AutoModelForCausalLM": "odd.Model", "AutoTokenizer": ["odd.Tokenizer", None]}
    (folder / "config.json").write_text(json.dumps({"model_type": "odd", "auto_map": auto}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": auto}))
    return folder


@pytest.mark.parametrize("how", ["text", "load"])
def test_code_that_comes_with_a_model_is_not_executed(trap: Path, how: str) -> None:
    source = Pretrained(name="odd", path=str(trap))
    with pytest.raises(UserError, match="cannot be loaded"):
        source.load_text(()) if how == "text" else source.load(texts=(), start=None, device="cpu", seed=0)
    assert not (trap.parent / "was_run").exists()
