"""Hub datasets: a cached copy, and the error without one."""

import os
import subprocess
import sys

import pytest

# The files that the hub's client leaves in its cache, made from local files by the client itself.
SCRIPT = """
import datasets, json, pathlib, sys
from alignbench.core.errors import UserError
from alignbench.data.custom import Custom

cache = pathlib.Path(sys.argv[1])

def fill(name, *splits):
    files = {split: str(cache / f"{name}_{split}.jsonl") for split in splits}
    for split, file in files.items():
        pathlib.Path(file).write_text("".join(json.dumps({"q": f"{split} {i}"}) + "\\n" for i in range(9)))
    datasets.load_dataset("json", data_files=files, cache_dir=str(cache / name))
    (made,) = (cache / name / "json").glob("*/*/*/dataset_info.json")
    home = cache / f"org___{name}" / "default" / "0.0.0" / made.parent.name
    home.parent.mkdir(parents=True)
    made.parent.rename(home)
    for arrow in home.glob("json-*.arrow"):
        arrow.rename(home / arrow.name.replace("json-", f"{name}-"))

def tell(name):
    data = Custom(name=f"org/{name}", prompt="q", validation_rows=2, test_rows=3)
    try:
        rows = {split: data.prompts(split) for split in ("train", "validation", "test")}
        print(*map(len, rows.values()), {row["prompt"].split()[0] for row in rows["test"]})
    except UserError as error:
        print(str(error).replace("\\n", " "))

fill("two", "train", "test")
fill("one", "train")
fill("other", "validation")
for name in ("two", "one", "other", "none"):
    tell(name)
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """What became of datasets with two splits, with one, with another one, and of one that is nowhere."""
    cache = tmp_path_factory.mktemp("cache")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    env = {**kept, "HF_HOME": str(cache), "HF_DATASETS_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", SCRIPT, str(cache)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_cached_copy_is_read(output):
    assert output[0] == "7 2 3 {'test'}"


def test_test_rows_are_split_off_without_a_test_split_on_the_hub(output):
    assert output[1] == "4 2 3 {'train'}"


def test_an_unreachable_hub_is_an_error_with_a_remedy(output):
    assert output[2].startswith("the dataset 'org/other' has no split 'train'; its splits are validation")
    assert output[3].startswith("cannot load the dataset 'org/none' from the hub: HF_HUB_OFFLINE is set")
    assert all("data.path=<file or folder>" in line for line in output[2:])
