"""Error messages for Hydra and OmegaConf: the option or key that does not exist, and the closest match."""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from alignbench.core.errors import UserError

RENAMED = {
    "rl.truncation": "rl.logits_filter",
    "eval.truncation": "eval.logits_filter",
}
"""Keys that were renamed: old name, new name."""

GROUP_VALUE = "Config group override must be"
"""Start of Hydra's ValueError for `algo=null` and `model=3`."""
NO_KEY = re.compile(r"Could not (?:override|delete from config\.|append to config\.) *'(?P<key>[^']+)'")
NO_OPTION = re.compile(r"Could not find '(?P<group>[^']+)/(?P<option>[^'/]+)'")
NO_EQUAL = re.compile(r"Error parsing override '(?P<override>.*?)'\n+(?P<why>[^\n]*)", re.DOTALL)


def is_config_error(error: BaseException) -> bool:
    """Whether an error of Hydra or OmegaConf means that the config or an override is invalid."""
    return isinstance(error, HydraException | OmegaConfBaseException) or GROUP_VALUE in str(error)


def describe_config_error(
    error: BaseException, overrides: Sequence[str], compose: Callable[..., Any], folder: Path
) -> str:
    """The message for an error of Hydra or OmegaConf.

    Args:
        error: The error raised while composing.
        overrides: The overrides; the options among them determine which keys exist.
        compose: Composes a config from overrides.
        folder: The folder of the config groups.
    """
    message = "\n".join(str(part) for part in (error, error.__cause__) if part is not None)
    message = message.split("Config search path:")[0]
    if GROUP_VALUE in message or "Error resolving interpolation '${preset}_${algo}'" in message:
        return f"{message.splitlines()[0]}: choose one option of the group, as in algo=ppo; --help lists all options"
    if found := NO_EQUAL.search(message):
        return f"{found['override']!r} is not a valid override ({found['why']}): write key=value, as in rl.steps=20"
    if found := NO_OPTION.search(message):
        return no_option(found["group"], found["option"], folder, message)
    if found := NO_KEY.search(message):
        return no_key(found["key"], keys_of(overrides, compose, folder), groups_of(folder))
    boilerplate = ("To append to your", "object_type=", "reference_type=", "See https://hydra.cc")
    lines = (line for line in message.splitlines() if line.strip() and not line.strip().startswith(boilerplate))
    return "\n".join(lines)


def no_option(group: str, option: str, folder: Path, message: str) -> str:
    """The message for an option that its group does not have."""
    listed = message.partition("Available options in")[2].splitlines()[1:]
    options = [line.strip() for line in listed if line.strip()] or [
        file.stem for file in folder.glob(f"{group}/*.yaml")
    ]
    if not options:
        return f"{group}={option}: no such group; --help lists groups and options"
    return f"{group}={option}: no such option; {suggest(option, options)}options: {', '.join(sorted(options))}"


def no_key(key: str, config: Mapping[str, Any], groups: Sequence[str]) -> str:
    """The message for a key that the config does not have, with the closest match."""
    if key in RENAMED:
        return f"unknown key {key}: it was renamed to {RENAMED[key]}"
    path: list[str] = []
    node: Any = config
    for name in key.split("."):
        if not isinstance(node, Mapping):
            return not_a_section(".".join(path), name, node)
        if name not in node:
            known = [*node, *(groups if not path else ())]
            near = difflib.get_close_matches(name, known, n=1)
            matches = [".".join([*path, *near])] if near else find_in_other_sections(key, config)
            hint = f"did you mean {matches[0]}?" if matches else f"known keys: {', '.join(map(str, node))}"
            return f"unknown key {key}; {hint}"
        path.append(name)
        node = node[name]
    return f"{key} is a section: set its keys, as in {key}.<key>=<value>"


def not_a_section(path: str, name: str, value: Any) -> str:
    """The message for a key below a value that is not a section."""
    if value is None:
        return (
            f"cannot set {path}.{name}, because {path} is null: set the whole section, as in '{path}={{{name}: ...}}', "
            f"or add the key with +{path}.{name}=..."
        )
    return f"unknown key {path}.{name}: {path} is a value ({value!r}), not a section"


def find_in_other_sections(key: str, config: Mapping[str, Any]) -> list[str]:
    """The dotted key of another section whose last part is similar."""
    leaves = {path.rpartition(".")[2]: path for path in paths(config)}
    return [leaves[near] for near in difflib.get_close_matches(key.rpartition(".")[2], leaves, n=1, cutoff=0.8)]


def paths(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Every dotted key of a nested config."""
    for name, value in config.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from paths(value, f"{prefix}{name}.")


def require_text(key: str, value: Any) -> str:
    """Return the value if it is text, else raise UserError."""
    if isinstance(value, str):
        return value
    kinds = {bool: "true or false", int: "an integer", float: "a number", list: "a list", dict: "a section"}
    found = "null" if value is None else kinds.get(type(value), type(value).__name__)
    quoted = "" if value is None or isinstance(value, list | dict) else f", or quote it, as in \"{key}='{value}'\""
    raise UserError(f"{key}={value}: text is expected, not {found}; give a name that begins with a letter{quoted}")


def suggest(name: str, known: Sequence[str]) -> str:
    """`did you mean X? ` if a known name is similar, else an empty string."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}? " if near else ""


def groups_of(folder: Path) -> list[str]:
    """The config groups, nested ones included, such as `algo` and `algo/kl`."""
    return sorted(place.relative_to(folder).as_posix() for place in folder.rglob("*") if place.is_dir())


def keys_of(overrides: Sequence[str], compose: Callable[..., Any], folder: Path) -> Mapping[str, Any]:
    """The config that the options among these overrides select; its keys are the known keys."""
    groups = groups_of(folder)
    chosen = [word.partition(",")[0] for word in overrides if word.lstrip("+").partition("=")[0] in groups]
    for options in (chosen, []):
        try:
            return dict(compose(*options))
        except (HydraException, OmegaConfBaseException, UserError, ValueError):
            continue
    return {}
