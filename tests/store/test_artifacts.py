"""Artifacts are made once, checked whenever they are read, and never trusted half-made."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import alignbench
from alignbench.core.errors import UserError
from alignbench.store.artifacts import ArtifactStore, key

ROOT = Path(alignbench.__file__).parents[1]
WANTED = {"config": {"lr": 0.1}, "parents": ["data-0"], "data": "abc", "code": 1}
NAME = key("sft", WANTED)

BUILDER = """
import logging, sys, time
from pathlib import Path
from alignbench.store.artifacts import ArtifactStore, key
logging.basicConfig(level=logging.INFO)
root, wanted, seconds = Path(sys.argv[1]), eval(sys.argv[2]), float(sys.argv[3])
def build(folder):
    (folder / "weights").write_text("w")
    print("building", flush=True)
    time.sleep(seconds)
artifact, made = ArtifactStore(root).make(key("sft", wanted), wanted, build)
print(made, (artifact.path / "weights").read_text())
"""


def start_builder(root, seconds):
    command = [sys.executable, "-c", BUILDER, str(root), repr(WANTED), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def build(folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "weights").write_bytes(b"\x00\x01\x02")
    (folder / "config.json").write_text("{}")


def never(folder):
    raise AssertionError("it is there already")


def test_the_name_is_the_sha256_of_canonical_json():
    # sha256 of {"a":[1,2],"b":null}
    assert key("sft", {"b": None, "a": (1, 2)}) == "sft-f25109c41113"
    assert key("sft", {"a": [1, 2], "b": None}) == key("sft", {"b": None, "a": [1, 2]})
    assert key("sft", {"a": [1, 2], "b": 0}) != key("sft", {"b": None, "a": [1, 2]})


def test_made_once_and_listed_in_its_manifest(tmp_path):
    store = ArtifactStore(tmp_path / "artifacts")
    assert store.get(NAME) is None
    artifact, made = store.make(NAME, WANTED, build)
    again, made_again = store.make(NAME, WANTED, never)
    assert (made, made_again) == (True, False)
    assert again == artifact == store.get(NAME)
    manifest = json.loads((artifact.path / "manifest.json").read_text())
    assert manifest == artifact.manifest
    assert (manifest["key"], manifest["phase"], manifest["parents"]) == (NAME, "sft", ["data-0"])
    assert manifest["ingredients"] == WANTED
    assert set(manifest["files"]) == {"config.json", "deep/weights"}
    assert manifest["files"]["deep/weights"] == {
        "bytes": 3,
        "sha256": "ae4b3280e56e2faf83f414a6e3dabe9d5fbe18976544c05fed121accb85b53fc",
    }


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "forget", "swap"])
def test_damage_is_noticed_set_aside_and_mended(tmp_path, caplog, harm):
    store = ArtifactStore(tmp_path)
    artifact, _ = store.make(NAME, WANTED, build)
    weights = artifact.path / "deep" / "weights"
    manifest = artifact.path / "manifest.json"
    {
        "flip": lambda: weights.write_bytes(b"\x00\x01\x03"),
        "cut": lambda: weights.write_bytes(b"\x00\x01"),
        "remove": weights.unlink,
        "forget": manifest.unlink,
        "swap": lambda: manifest.write_text(manifest.read_text().replace(NAME, "sft-0")),
    }[harm]()
    assert store.get(NAME) is None
    assert (tmp_path / f"{NAME}.damaged-1").is_dir()
    assert f"{NAME}.damaged-1" in caplog.text
    mended, made = store.make(NAME, WANTED, build)
    assert made
    (mended.path / "config.json").unlink()
    assert store.get(NAME) is None
    assert (tmp_path / f"{NAME}.damaged-2").is_dir()


def test_two_processes_that_ask_at_once_make_it_once(tmp_path):
    builders = [start_builder(tmp_path, seconds=1.5) for _ in range(2)]
    answers = [builder.communicate(timeout=30) for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0], answers
    assert sorted(out.split()[-2:] for out, _ in answers) == [["False", "w"], ["True", "w"]]
    assert sum("building" in out for out, _ in answers) == 1
    assert sum(f"waiting for {NAME}" in err for _, err in answers) == 1


def test_a_killed_builder_leaves_nothing_that_is_trusted(tmp_path):
    builder = start_builder(tmp_path, seconds=60)
    assert builder.stdout.readline() == "building\n"
    builder.send_signal(signal.SIGKILL)
    builder.communicate(timeout=30)
    store = ArtifactStore(tmp_path)
    assert (tmp_path / f"{NAME}.building" / "weights").exists()
    assert store.get(NAME) is None
    artifact, made = store.make(NAME, WANTED, build)
    assert made
    assert not (artifact.path / "weights").exists()
    assert not (tmp_path / f"{NAME}.building").exists()


def test_a_build_that_raises_leaves_nothing(tmp_path):
    def fails(folder):
        (folder / "half").write_text("x")
        raise ZeroDivisionError

    store = ArtifactStore(tmp_path)
    with pytest.raises(ZeroDivisionError):
        store.make(NAME, WANTED, fails)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    assert store.make(NAME, WANTED, build)[1]


def test_a_name_of_other_ingredients_is_refused(tmp_path):
    with pytest.raises(AssertionError, match="not the name"):
        ArtifactStore(tmp_path).make(NAME, {**WANTED, "code": 2}, build)


def test_a_folder_that_cannot_be_written_names_the_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file/artifacts.*output_dir="):
        ArtifactStore(tmp_path / "file" / "artifacts").make(NAME, WANTED, build)


def test_a_full_disk_names_the_remedy(tmp_path):
    def fills(folder):
        with open("/dev/full", "wb") as full:
            full.write(b"x")

    with pytest.raises(UserError, match=r"No space left.*output_dir="):
        ArtifactStore(tmp_path).make(NAME, WANTED, fills)
    assert ArtifactStore(tmp_path).get(NAME) is None


def test_a_dataset_that_cannot_be_read_is_not_blamed_on_the_store(tmp_path):
    def reads(folder):
        (tmp_path / "other" / "file").write_text("")
        (tmp_path / "other" / "file" / "below").read_text()

    (tmp_path / "other").mkdir()
    with pytest.raises(NotADirectoryError):
        ArtifactStore(tmp_path / "artifacts").make(NAME, WANTED, reads)


def test_reading_waits_for_no_lock(tmp_path):
    ArtifactStore(tmp_path).make(NAME, WANTED, build)
    (tmp_path / f"{NAME}.lock").unlink(missing_ok=True)
    started = time.perf_counter()
    assert ArtifactStore(tmp_path).make(NAME, WANTED, never)[1] is False
    assert not (tmp_path / f"{NAME}.lock").exists()
    assert time.perf_counter() - started < 5
