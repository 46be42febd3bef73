"""The generated files are up to date, every key is explained, and each default is declared once."""

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from small_runs import ROOT, config

from alignbench.commands.config_reference import COMMAND, GROUPS, generate, keys_of, literal, target_of
from alignbench.core.field_types import Count, Momentum
from alignbench.runs.schema import MISSING, describe_type, first_sentence, plain, settings_of, type_schema
from alignbench.runs.settings import RunSettings, locate

OPTIONS = [file for group in GROUPS for file in sorted((ROOT / "conf" / group).glob("*.yaml"))]
NEEDS = {"reward=custom": ["reward.function=math:gcd"], "judge=openai_compatible": ["judge.model=m"]}
OWN_CLASS = [file for file in OPTIONS if file.parent.name in ("algo", "kl") and f".{file.stem}." in target_of(file)]


@pytest.mark.parametrize("name", ["conf/config.yaml", "docs/configuration.md", "conf/alignbench.schema.json"])
def test_the_generated_file_is_up_to_date(name: str) -> None:
    assert (ROOT / name).read_text() == generate(ROOT)[name], f"out of date: run `{COMMAND}` and commit the result"


def test_every_key_has_a_sentence() -> None:
    for setting in settings_of(RunSettings):
        assert setting.description, setting.name
        keys = keys_of(setting.section, setting.name) if setting.section else ()
        assert [key for key, each in keys if not each.description] == []
    for file in OPTIONS:
        keys = keys_of(locate(target_of(file), file.stem), file.stem)
        assert [key for key, each in keys if not each.description] == [], file


def test_every_default_of_the_composed_config_is_that_of_its_class() -> None:
    composed = OmegaConf.to_container(config())
    checked = 0
    for setting in settings_of(RunSettings):
        node = composed[setting.name]
        if isinstance(node, dict) and setting.name != "names":
            cls = setting.section or locate(node["_target_"], setting.name)
            checked += assert_equal_defaults(node, cls, setting.name)
    assert checked > 130


@pytest.mark.parametrize("file", OWN_CLASS, ids=lambda file: file.stem)
def test_the_option_of_an_algorithm_does_not_change_its_defaults(file: Path) -> None:
    group = "algo" if file.parent.name == "algo" else "algo/kl"
    node = OmegaConf.to_container(config(f"{group}={file.stem}"))["algo"]
    node = node if group == "algo" else node["kl"]
    cls = locate(target_of(file), file.stem)
    if group == "algo":
        assert assert_equal_defaults(node, cls, file.stem) > 5
    else:
        own = {setting.name: setting for setting in settings_of(cls)}.keys() - {
            "placement",
            "estimator",
            "exact_gradient",
        }
        assert own <= node.keys()


def assert_equal_defaults(node: dict[str, Any], cls: type, where: str) -> int:
    """Compare key by key. Returns the number of keys."""
    number = 0
    for setting in settings_of(cls):
        if setting.default is not MISSING:
            number += assert_equal(node[setting.name], plain(setting.default), f"{where}.{setting.name}")
    return number


def assert_equal(value: Any, default: Any, where: str) -> int:
    if isinstance(value, dict) and isinstance(default, dict):
        return sum(assert_equal(value[key], default[key], f"{where}.{key}") for key in default)
    assert value == default, f"{where}: conf has {value}, the class {default}"
    return 1


def test_the_schema_has_every_key_of_every_option() -> None:
    schema = json.loads((ROOT / "conf" / "alignbench.schema.json").read_text())
    for file in [file for file in OPTIONS if file.parent.parent.name == "conf"]:
        needs = NEEDS.get(f"{file.parent.name}={file.stem}", [])
        node = OmegaConf.to_container(config(f"{file.parent.name}={file.stem}", *needs))
        assert_in_schema(node, schema, schema["$defs"], "")


def assert_in_schema(node: Any, schema: dict[str, Any], definitions: dict[str, Any], where: str) -> None:
    """Each key of a config is a property of one of the alternatives of its schema."""
    if not isinstance(node, dict):
        return
    options = [definitions[each["$ref"].rpartition("/")[2]] if "$ref" in each else each
               for each in schema.get("anyOf", [schema])]  # fmt: skip
    fitting = [each for each in options if node.keys() <= each.get("properties", node).keys()]
    assert fitting, f"{where}: {sorted(node)}"
    for key, value in node.items():
        below = fitting[0].get("properties", {}).get(key, {})
        assert_in_schema(value, below, definitions, f"{where}.{key}")


def test_types_and_literals_are_readable() -> None:
    assert describe_type(Count | None) == "int \N{GREATER-THAN OR EQUAL TO} 1 or null"
    assert describe_type(Momentum) == "float \N{GREATER-THAN OR EQUAL TO} 0 and < 1"
    assert type_schema(Count) == {"type": ["integer", "string"], "pattern": r"^\$\{|^\?\?\?$", "minimum": 1}
    assert [literal(v) for v in (5e-5, 0.004, 1, True, None, [1, 2.0], "a", "a: b", "")] == [
        "5e-5", "0.004", "1", "true", "null", "[1, 2.0]", "a", '"a: b"', '""'
    ]  # fmt: skip
    assert first_sentence("Such as 8.0. ...\nthe rest. Then more.") == "Such as 8.0. ... the rest."
