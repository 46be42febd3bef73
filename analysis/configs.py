"""How the configs of the methods differ, and why each difference is allowed."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from .load import Run

IGNORED = (
    "seed",
    "study",
    "output_dir",
    "run_dir",
    "plan",
    "tracking.*",
    "sweeps",
    "preset",
    "hydra.*",
    "analysis.*",
    "judge.*",
)
OF_THE_METHOD = ("method", "names.method", "algo.*")


@dataclass(frozen=True)
class ConfigDifference:
    """One config key and its value in every arm."""

    key: str
    values: dict[str, str]
    allowed: str


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as {"algo.lr": "1e-05"}; lists stay whole."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(key, pattern) or key.startswith(f"{pattern}.") for pattern in patterns)


def config_differences(
    runs: list[Run], arms: list[str], allow: tuple[str, ...]
) -> tuple[tuple[ConfigDifference, ...], int]:
    """The keys whose values are not the same in all runs, and how many keys there are."""
    flat = [(run.arm, flatten(run.config)) for run in runs if run.config]
    keys = sorted({key for _, config in flat for key in config if not _matches(key, IGNORED)})
    found = []
    for key in keys:
        if len({config.get(key) for _, config in flat}) > 1:
            values = {arm: _values(key, [config for owner, config in flat if owner == arm]) for arm in arms}
            mixed = any(len({config.get(key) for owner, config in flat if owner == arm}) > 1 for arm in arms)
            found.append(ConfigDifference(key, values, _why_allowed(key, allow, mixed)))
    return tuple(found), len(keys)


def _values(key: str, configs: list[dict[str, str]]) -> str:
    return " | ".join(dict.fromkeys(config.get(key, "not used") for config in configs)) or "n/a"


def _why_allowed(key: str, allow: tuple[str, ...], mixed: bool) -> str:
    if _matches(key, allow):
        return "declared in analysis.allow"
    if mixed:
        return ""  # the seeds of one method were not treated alike
    return "the comparison itself" if _matches(key, OF_THE_METHOD) else ""
