"""Artifacts are built once, verified when they are read, and incomplete ones are never used."""

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
INGREDIENTS = {"config": {"lr": 0.1}, "parents": ["data-0"], "data": "abc", "code": 1}
KEY = key("sft", INGREDIENTS)

BUILDER = """
import logging, sys, time
from pathlib import Path
from alignbench.store.artifacts import ArtifactStore, key
logging.basicConfig(level=logging.INFO)
root, ingredients, seconds = Path(sys.argv[1]), eval(sys.argv[2]), float(sys.argv[3])
def build(folder):
    (folder / "weights").write_text("w")
    print("building", flush=True)
    time.sleep(seconds)
artifact, made = ArtifactStore(root).make(key("sft", ingredients), ingredients, build)
print(made, (artifact.path / "weights").read_text())
"""


def start_builder(root, seconds):
    command = [sys.executable, "-c", BUILDER, str(root), repr(INGREDIENTS), str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def build(folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "weights").write_bytes(b"\x00\x01\x02")
    (folder / "config.json").write_text("{}")


def never(folder):
    raise AssertionError("the artifact exists already")


def test_the_key_is_the_sha256_of_canonical_json():
    # sha256 of {"a":[1,2],"b":null}
    assert key("sft", {"b": None, "a": (1, 2)}) == "sft-f25109c41113"
    assert key("sft", {"a": [1, 2], "b": None}) == key("sft", {"b": None, "a": [1, 2]})
    assert key("sft", {"a": [1, 2], "b": 0}) != key("sft", {"b": None, "a": [1, 2]})


def test_an_artifact_is_built_once_and_listed_in_its_manifest(tmp_path):
    store = ArtifactStore(tmp_path / "artifacts")
    assert store.get(KEY) is None
    artifact, made = store.make(KEY, INGREDIENTS, build)
    again, made_again = store.make(KEY, INGREDIENTS, never)
    assert (made, made_again) == (True, False)
    assert again == artifact == store.get(KEY)
    manifest = json.loads((artifact.path / "manifest.json").read_text())
    assert manifest == artifact.manifest
    assert (manifest["key"], manifest["phase"], manifest["parents"]) == (KEY, "sft", ["data-0"])
    assert manifest["ingredients"] == INGREDIENTS
    assert set(manifest["files"]) == {"config.json", "deep/weights"}
    assert manifest["files"]["deep/weights"] == {
        "bytes": 3,
        "sha256": "ae4b3280e56e2faf83f414a6e3dabe9d5fbe18976544c05fed121accb85b53fc",
    }


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "forget", "swap"])
def test_a_damaged_artifact_is_renamed_and_built_again(tmp_path, caplog, damage):
    store = ArtifactStore(tmp_path)
    artifact, _ = store.make(KEY, INGREDIENTS, build)
    weights = artifact.path / "deep" / "weights"
    manifest = artifact.path / "manifest.json"
    {
        "flip": lambda: weights.write_bytes(b"\x00\x01\x03"),
        "cut": lambda: weights.write_bytes(b"\x00\x01"),
        "remove": weights.unlink,
        "forget": manifest.unlink,
        "swap": lambda: manifest.write_text(manifest.read_text().replace(KEY, "sft-0")),
    }[damage]()
    assert store.get(KEY) is None
    assert (tmp_path / f"{KEY}.damaged-1").is_dir()
    assert f"{KEY}.damaged-1" in caplog.text
    rebuilt, made = store.make(KEY, INGREDIENTS, build)
    assert made
    (rebuilt.path / "config.json").unlink()
    assert store.get(KEY) is None
    assert (tmp_path / f"{KEY}.damaged-2").is_dir()


def test_two_processes_at_once_build_an_artifact_once(tmp_path):
    builders = [start_builder(tmp_path, seconds=1.5) for _ in range(2)]
    answers = [builder.communicate(timeout=30) for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0], answers
    assert sorted(out.split()[-2:] for out, _ in answers) == [["False", "w"], ["True", "w"]]
    assert sum("building" in out for out, _ in answers) == 1
    assert sum(f"waiting for {KEY}" in err for _, err in answers) == 1


def test_an_artifact_of_a_killed_builder_is_not_used(tmp_path):
    builder = start_builder(tmp_path, seconds=60)
    assert builder.stdout.readline() == "building\n"
    builder.send_signal(signal.SIGKILL)
    builder.communicate(timeout=30)
    store = ArtifactStore(tmp_path)
    assert (tmp_path / f"{KEY}.building" / "weights").exists()
    assert store.get(KEY) is None
    artifact, made = store.make(KEY, INGREDIENTS, build)
    assert made
    assert not (artifact.path / "weights").exists()
    assert not (tmp_path / f"{KEY}.building").exists()


def test_a_build_that_raises_leaves_nothing(tmp_path):
    def fails(folder):
        (folder / "half").write_text("x")
        raise ZeroDivisionError

    store = ArtifactStore(tmp_path)
    with pytest.raises(ZeroDivisionError):
        store.make(KEY, INGREDIENTS, fails)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    assert store.make(KEY, INGREDIENTS, build)[1]


def test_a_key_of_other_ingredients_is_refused(tmp_path):
    with pytest.raises(AssertionError, match="not the key"):
        ArtifactStore(tmp_path).make(KEY, {**INGREDIENTS, "code": 2}, build)


def test_a_folder_that_cannot_be_written_names_the_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write to .*file/artifacts.*output_dir="):
        ArtifactStore(tmp_path / "file" / "artifacts").make(KEY, INGREDIENTS, build)


def test_a_full_disk_names_the_remedy(tmp_path):
    def fills(folder):
        with open("/dev/full", "wb") as full:
            full.write(b"x")

    with pytest.raises(UserError, match=r"No space left.*output_dir="):
        ArtifactStore(tmp_path).make(KEY, INGREDIENTS, fills)
    assert ArtifactStore(tmp_path).get(KEY) is None


def test_an_unreadable_dataset_is_not_reported_as_an_error_of_the_store(tmp_path):
    def reads(folder):
        (tmp_path / "other" / "file").write_text("")
        (tmp_path / "other" / "file" / "below").read_text()

    (tmp_path / "other").mkdir()
    with pytest.raises(NotADirectoryError):
        ArtifactStore(tmp_path / "artifacts").make(KEY, INGREDIENTS, reads)


def test_reading_needs_no_lock(tmp_path):
    ArtifactStore(tmp_path).make(KEY, INGREDIENTS, build)
    (tmp_path / f"{KEY}.lock").unlink(missing_ok=True)
    started = time.perf_counter()
    assert ArtifactStore(tmp_path).make(KEY, INGREDIENTS, never)[1] is False
    assert not (tmp_path / f"{KEY}.lock").exists()
    assert time.perf_counter() - started < 5
