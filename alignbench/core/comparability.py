"""Which settings may differ between the methods of a study: asked before it starts, and again in its report."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

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
"""Keys that do not shape a comparison."""
OF_THE_METHOD = ("method", "names.method", "algo.*")
"""Keys that are the comparison itself."""
NOT_A_SETTING = ("seed", "algo", "study", "output_dir")
"""Overrides that do not make a method with other settings another arm."""


@dataclass(frozen=True)
class Difference:
    """One config key and its value in every arm; `allowed` says why it may differ and is empty where it may not."""

    key: str
    values: dict[str, str]
    allowed: str

    def __str__(self) -> str:
        return f"{self.key} ({', '.join(f'{arm}: {value}' for arm, value in self.values.items())})"


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as {"algo.lr": "1e-05"}; lists stay whole."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def differences(
    runs: Sequence[tuple[str, Mapping[str, Any]]], allow: Sequence[str]
) -> tuple[tuple[Difference, ...], int]:
    """The keys whose values are not the same in all runs, given as (arm, config), and how many keys there are."""
    flat = [(arm, flatten(config)) for arm, config in runs if config]
    arms = list(dict.fromkeys(arm for arm, _ in runs))
    keys = sorted({key for _, config in flat for key in config if not _matches(key, IGNORED)})
    found = []
    for key in keys:
        if len({config.get(key) for _, config in flat}) > 1:
            own = {arm: [config.get(key, "not used") for owner, config in flat if owner == arm] for arm in arms}
            values = {arm: " | ".join(dict.fromkeys(row)) or "n/a" for arm, row in own.items()}
            mixed = any(len(set(row)) > 1 for row in own.values())
            found.append(Difference(key, values, _why_allowed(key, allow, mixed)))
    return tuple(found), len(keys)


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(key, pattern) or key.startswith(f"{pattern}.") for pattern in patterns)


def _why_allowed(key: str, allow: Sequence[str], mixed: bool) -> str:
    if _matches(key, allow):
        return "declared in analysis.allow"
    if mixed:
        return ""  # the seeds of one method were not treated alike
    return "the comparison itself" if _matches(key, OF_THE_METHOD) else ""


def label_methods(plan: Sequence[Mapping[str, Any]]) -> list[str]:
    """The method of each planned run; with the swept settings where one method was planned with several."""
    settings = [_settings(entry) for entry in plan]
    variants: dict[str, set[tuple[str, ...]]] = {}
    for entry, words in zip(plan, settings, strict=True):
        variants.setdefault(entry["method"], set()).add(words)
    labels = []
    for entry, words in zip(plan, settings, strict=True):
        shared = set.intersection(*map(set, variants[entry["method"]]))
        labels.append(" ".join([entry["method"], *(word for word in words if word not in shared)]))
    return labels


def _settings(entry: Mapping[str, Any]) -> tuple[str, ...]:
    words = [word.lstrip("+") for word in entry.get("overrides", [])]
    return tuple(sorted(word for word in words if word.split("=")[0] not in NOT_A_SETTING))
