"""Checkpoints are loaded exactly as saved; damaged, unrecorded or incomplete ones are skipped."""

import resource
import zipfile
from collections import OrderedDict

import pytest
import torch
from full_disk import at_most

from alignbench.core.errors import UserError
from alignbench.store.checkpoints import Checkpoints


def payload(step):
    generator = torch.Generator().manual_seed(step)
    weights = torch.randn(3, 4, generator=generator)
    return {
        "model": OrderedDict(weight=weights, tied=weights),
        "part": weights.T[1:],
        "half": weights.to(torch.bfloat16),
        "state": {"step": step, "kl_coef": 0.1 + step, "name": "ppo", "none": None, "pair": (1, 2.5)},
        "generator": generator.get_state(),
        "adamw": {0: {"betas": (0.9, 0.99)}, 1: [float("-inf"), True]},
    }


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def flip_last_byte(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_payload_is_loaded_bit_for_bit(tmp_path):
    saved = Checkpoints(tmp_path / "checkpoints")
    assert saved.latest() is None
    saved.save(7, payload(7))
    step, got = saved.latest()
    expected = payload(7)
    assert step == 7
    assert got["state"] == expected["state"]
    for name in ("half", "part", "generator"):
        assert got[name].dtype == expected[name].dtype
        assert torch.equal(got[name], expected[name])
    assert torch.equal(got["model"]["weight"], expected["model"]["weight"])
    assert got["model"]["weight"].data_ptr() == got["model"]["tied"].data_ptr()
    assert type(got["state"]["pair"]) is tuple
    assert got["adamw"] == {0: {"betas": (0.9, 0.99)}, 1: [float("-inf"), True]}


def test_the_optimizer_state_is_loaded_without_pickle(tmp_path):
    weight = torch.nn.Parameter(torch.randn(4))
    adamw = torch.optim.AdamW([weight])
    weight.grad = torch.ones(4)
    adamw.step()
    Checkpoints(tmp_path).save(1, {"optimizer": adamw.state_dict()})
    (file,) = tmp_path.iterdir()
    assert not zipfile.is_zipfile(file), "torch.save writes zip files of pickles"
    again = torch.optim.AdamW([weight])
    again.load_state_dict(Checkpoints(tmp_path).latest()[1]["optimizer"])
    one, two = (o.state_dict()["state"][0] for o in (adamw, again))
    assert all(torch.equal(one[name], two[name]) for name in ("step", "exp_avg", "exp_avg_sq"))
    assert adamw.state_dict()["param_groups"] == again.state_dict()["param_groups"]


def test_the_newest_checkpoints_are_kept(tmp_path):
    saved = Checkpoints(tmp_path, keep=2)
    for step in (5, 10, 99_999_999, 100_000_000):
        saved.save(step, payload(step))
        assert saved.latest()[0] == step
    assert [name.split(".")[0] for name in names(tmp_path)] == ["step-100000000", "step-99999999"]
    saved.clear()
    assert saved.latest() is None


def test_a_step_saved_again_replaces_only_itself(tmp_path):
    saved = Checkpoints(tmp_path, keep=2)
    saved.save(1, payload(1))
    saved.save(2, payload(2))
    saved.save(2, payload(3))
    assert [name.split(".")[0] for name in names(tmp_path)] == ["step-00000001", "step-00000002"]
    assert saved.latest()[1]["state"]["step"] == 3


def test_the_checkpoint_before_a_damaged_one_is_used(tmp_path, caplog):
    saved = Checkpoints(tmp_path)
    saved.save(10, payload(10))
    saved.save(20, payload(20))
    flip_last_byte(tmp_path / names(tmp_path)[-1])
    assert saved.latest()[0] == 10
    assert "step-00000020" in caplog.text
    assert "damaged" in caplog.text
    saved.save(20, payload(20))
    assert saved.latest()[0] == 20
    for name in names(tmp_path):
        flip_last_byte(tmp_path / name)
    assert saved.latest() is None


def test_the_checkpoint_before_an_unrecorded_one_is_used(tmp_path):
    warnings = []
    saved = Checkpoints(tmp_path, warn=warnings.append)
    saved.save(10, payload(10))
    saved.save(20, payload(20))
    assert saved.latest(lambda one: one["state"]["step"] < 20)[0] == 10
    assert [name.rsplit(".", 1)[1] for name in names(tmp_path)] == ["safetensors", "unrecorded"]
    assert saved.latest(lambda one: False) is None
    first, second = warnings
    assert "step-00000020" in first
    assert first.endswith("lost: renamed, the checkpoint before it is used")
    assert second.endswith("lost: renamed, training starts over")


def test_a_run_killed_while_saving_resumes_from_the_checkpoint_before(tmp_path):
    saved = Checkpoints(tmp_path)
    saved.save(10, payload(10))
    (tmp_path / "unfinished").write_bytes(b"half a checkpoint")
    assert saved.latest()[0] == 10
    saved.save(20, payload(20))
    assert saved.latest()[0] == 20
    assert "unfinished" not in names(tmp_path)


def test_an_object_that_needs_code_to_load_is_refused_when_saved(tmp_path):
    saved = Checkpoints(tmp_path)
    saved.save(10, payload(10))
    with pytest.raises(TypeError, match="not struct_rusage"):
        saved.save(20, {"rng": resource.getrusage(resource.RUSAGE_SELF)})
    assert saved.latest()[0] == 10


def test_a_folder_that_cannot_be_written_names_the_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file/checkpoints.*output_dir="):
        Checkpoints(tmp_path / "file" / "checkpoints").save(1, payload(1))


def test_a_full_disk_names_the_remedy_and_keeps_the_checkpoint_before(tmp_path):
    saved = Checkpoints(tmp_path)
    saved.save(1, payload(1))
    with at_most(50_000), pytest.raises(UserError, match="free some space there"):
        saved.save(2, {"large": torch.zeros(100_000)})
    assert saved.latest()[0] == 1
