"""Which settings may differ between the methods of a study; checked before it starts and in its report."""

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
"""Keys that do not affect a comparison."""
OF_THE_METHOD = ("method", "names.method", "algo.*")
"""Keys of the method, which are what is compared."""
NOT_A_SETTING = ("seed", "algo", "study", "output_dir")
"""Overrides that do not make a run a method of its own."""


@dataclass(frozen=True)
class Difference:
    """A config key whose value differs between methods; `allowed` says why it may, and is empty if it may not."""

    key: str
    values: dict[str, str]
    allowed: str

    def __str__(self) -> str:
        return f"{self.key} ({', '.join(f'{method}: {value}' for method, value in self.values.items())})"


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted keys, such as {"algo.lr": "1e-05"}; lists are not flattened."""
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
    """The keys whose values differ between `runs`, given as (method, config), and the number of keys compared."""
    flat = [(method, flatten(config)) for method, config in runs if config]
    methods = list(dict.fromkeys(method for method, _ in runs))
    keys = sorted({key for _, config in flat for key in config if not _matches(key, IGNORED)})
    found = []
    for key in keys:
        if len({config.get(key) for _, config in flat}) > 1:
            own = {
                method: [config.get(key, "not used") for owner, config in flat if owner == method] for method in methods
            }
            values = {method: " | ".join(dict.fromkeys(row)) or "n/a" for method, row in own.items()}
            mixed = any(len(set(row)) > 1 for row in own.values())
            found.append(Difference(key, values, _why_allowed(key, allow, mixed)))
    return tuple(found), len(keys)


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(key, pattern) or key.startswith(f"{pattern}.") for pattern in patterns)


def _why_allowed(key: str, allow: Sequence[str], mixed: bool) -> str:
    if _matches(key, allow):
        return "declared in analysis.allow"
    if mixed:
        return ""  # differs between the seeds of one method
    return "the comparison itself" if _matches(key, OF_THE_METHOD) else ""


def label_methods(plan: Sequence[Mapping[str, Any]]) -> list[str]:
    """The method of each planned run, with its swept settings if the method is planned with several."""
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
