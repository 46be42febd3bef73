"""Builds validated settings objects from a config; unknown keys, wrong types and values out of range are errors."""

import difflib
import hashlib
import importlib
import json
import os
import sys
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, TypeAdapter, ValidationError

from alignbench.core.errors import UserError
from alignbench.core.field_types import NonNegative, Positive, Size
from alignbench.engine.checks import Invariants
from alignbench.runs.config_errors import RENAMED, require_text
from alignbench.runs.schema import dataclass_in
from alignbench.stages.evaluate import Evaluate
from alignbench.stages.online import RL
from alignbench.stages.reward_model import RewardModelTraining
from alignbench.stages.sft import SFT

NOT_PART_OF_A_RUN = ("study", "output_dir", "plan", "tracking", "analysis", "judge")
"""Sections that do not change what is computed, and so do not change a run's key."""


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Experiment tracking with MLflow, in addition to the files of the run."""

    enabled: bool = True
    """Off writes metrics.jsonl only."""
    uri: str | None = None
    """An MLflow tracking server; null is SQLite under output_dir."""
    experiment: str = "alignbench"
    """The MLflow experiment."""
    samples: Size = 8
    """Number of rollouts logged as a table at every evaluation."""

    def __post_init__(self) -> None:
        if urlsplit(self.uri or "").password is not None:
            raise UserError(
                "uri contains a password, and every run saves its config: remove it, and set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment"
            )


@dataclass(frozen=True, kw_only=True)
class Planning:
    """Planning of a run: its cost estimate, without running it; plan=true is short for plan.enabled=true."""

    enabled: bool = False
    """Check the config and data and print the plan; train nothing, write nothing."""
    probe: bool = False
    """Print the plan, and time two steps of each stage in a temporary folder."""

    @property
    def requested(self) -> bool:
        """Whether a plan is requested instead of a run."""
        return self.enabled or self.probe


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """Settings of the analysis, declared before a study runs and read by the report."""

    metric: str | None = None
    """The metric of the verdict; null selects the first available of final/gold, final/accuracy, final/avg_reward."""
    baseline: str | None = None
    """The method that others are compared with; null selects ppo if the study contains it."""
    margin: Positive | None = None
    """Largest difference that is practically irrelevant, in units of the metric; null declares none."""
    pairing: Literal["none", "seed"] = "none"
    """seed compares runs seed by seed, if the manifests show that methods shared the randomness of each seed."""
    allow: tuple[str, ...] = ()
    """Config keys, in addition to algo.*, that may differ between methods."""
    price_per_hour: NonNegative | None = None
    """Price of this machine in dollars per hour; null omits prices."""
    expected_memory_gb: dict[str, list[NonNegative]] | None = None
    """Expected peak memory of each method as [minimum, maximum], such as {ppo: [4, 5]}; null checks nothing."""

    def __post_init__(self) -> None:
        for method, span in (self.expected_memory_gb or {}).items():
            if len(span) != 2 or span[0] > span[1]:
                raise UserError(f"expected_memory_gb.{method}={span}: give the minimum and the maximum, such as [4, 5]")


@dataclass(frozen=True, kw_only=True)
class Names:
    """The chosen option of each config group that is part of a run's name; set by the options themselves."""

    method: str
    """The option of `algo`; another name distinguishes variants of one method in the report."""
    model: str
    """The option of `model`."""
    data: str
    """The option of `data`."""
    reward: str
    """The option of `reward`."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The settings of one run, built and validated."""

    seed: Size
    """Seed of the run: prompt order, sampling and initialization of new weights."""
    study: str | None
    """The study that the run belongs to; null is `single`, or a name made from the overrides of a sweep."""
    output_dir: str
    """Folder of runs, artifacts, reports and mlflow.db."""
    plan: Planning
    """Print the plan of a run instead of running it."""
    names: Names
    """Names of the chosen options."""
    model: Any
    """The language model."""
    algo: Any
    """The alignment method."""
    reward: Any
    """What scores a response."""
    data: Any
    """Prompts, demonstrations and preference pairs."""
    hardware: Any
    """Device, precision, batching and memory."""
    judge: Any
    """The LLM judge of the report."""
    sft: SFT
    """Supervised fine-tuning, shared by all runs of a study."""
    reward_model: RewardModelTraining
    """Training of the reward model, if the reward needs one (`reward=bradley_terry`)."""
    rl: RL
    """Reinforcement learning: budget, sampling and optimizer, the same for every method."""
    eval: Evaluate
    """Evaluation during training and at the end."""
    invariants: Invariants
    """Checks during training."""
    tracking: Tracking
    """Experiment tracking with MLflow."""
    analysis: Analysis
    """Settings of the analysis, declared before a study runs."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Name, key and folder of a run."""

    study: str
    method: str
    model: str
    seed: int
    key: str
    run_dir: Path


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """The config as plain values, interpolations filled in."""
    try:
        plain = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"the config cannot be resolved: {str(error).splitlines()[0]}") from error
    assert isinstance(plain, dict)
    if isinstance(plain.get("plan"), bool):
        plain["plan"] = {"enabled": plain["plan"], "probe": False}
    return {str(key): value for key, value in plain.items() if key != "hydra"}


def check(cfg: DictConfig) -> None:
    """Raise UserError for the first unknown key, wrong type or value out of range."""
    build(resolve(cfg))


def build(config: Mapping[str, Any]) -> RunSettings:
    """Build the settings of a run from a resolved config.

    Raises:
        UserError: a key is unknown or missing, or a value is invalid.
    """
    settings: RunSettings = _construct(RunSettings, config, "")
    return settings


def is_plan(config: Mapping[str, Any]) -> bool:
    """Whether a resolved config requests a plan; its other sections are not checked."""
    return bool(_value(Planning, config["plan"], "plan").requested)


def build_valid_sections(config: Mapping[str, Any]) -> tuple[RunSettings, dict[str, UserError]]:
    """The settings with None for each invalid section, and the error of each invalid section."""
    hints, sections, errors = (
        typing.get_type_hints(RunSettings, include_extras=True),
        dict[str, Any](),
        dict[str, UserError](),
    )
    _refuse_unknown(config, {field.name: field for field in fields(RunSettings)}, "")
    for name, hint in hints.items():
        try:
            sections[name] = _value(hint, config[name], name)
        except UserError as error:
            sections[name], errors[name] = None, error
    return RunSettings(**sections), errors


def identify(cfg: DictConfig | Mapping[str, Any]) -> Identity:
    """The name, key and folder of the run that a config describes.

    Raises:
        UserError: a name is not a valid folder name.
    """
    config = resolve(cfg) if isinstance(cfg, DictConfig) else cfg
    check_names(config)
    names, study = config["names"], config["study"] or "single"
    key = hashlib.sha256(_canonical({k: v for k, v in config.items() if k not in NOT_PART_OF_A_RUN})).hexdigest()
    folder = f"{names['method']}-{names['model']}-s{config['seed']}-{key[:8]}"
    return Identity(
        study=study,
        method=names["method"],
        model=names["model"],
        seed=config["seed"],
        key=key,
        run_dir=Path(config["output_dir"]) / "runs" / study / folder,
    )


def check_names(config: Mapping[str, Any]) -> None:
    """Raise UserError if a name that becomes part of a path is not text or not a safe folder name."""
    names = {"study": config["study"] or "single", "output_dir": config["output_dir"]}
    names |= {f"names.{what}": value for what, value in config["names"].items()}
    for key, value in names.items():
        require_text(key, value)
        if key != "output_dir" and (not value.strip(".") or set(value) - set(SAFE)):
            raise UserError(f"{key}={value!r} becomes a folder name: use letters, digits, dot, dash and underscore")


def section(config: Mapping[str, Any], path: str) -> Any:
    """The object of one section, such as `reward`, from a resolved config."""
    return _value(Any, config, path)


def flatten(config: Any, path: str = "") -> dict[str, Any]:
    """A nested config as one level of dotted keys."""
    if not isinstance(config, dict):
        return {path: config}
    return {k: v for name, part in config.items() for k, v in flatten(part, f"{path}.{name}" if path else name).items()}


def conditions(config: Mapping[str, Any], made_of: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that determines a run's metrics, as dotted keys with plain values."""
    settings = {name: part for name, part in config.items() if name not in NOT_PART_OF_A_RUN}
    return flatten(json.loads(json.dumps({**settings, **made_of}, default=str)))


def custom_functions(reward: Mapping[str, Any]) -> list[str]:
    """The user-defined functions of a reward and its parts."""
    return [value for name, value in flatten(dict(reward)).items() if name.rpartition(".")[2] == "function"]


SAFE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()


def _construct(cls: type, node: Mapping[str, Any], path: str) -> Any:
    """An object of a dataclass from a config node, its own parts built first."""
    hints = typing.get_type_hints(cls, include_extras=True)
    known = {f.name: f for f in fields(cls)}
    entries = {str(k): v for k, v in node.items() if k != "_target_" and v != "???"}  # ??? marks a missing value
    _refuse_unknown(entries, known, path)
    values = {name: _value(hints[name], value, _join(path, name)) for name, value in entries.items()}
    missing = [
        n for n, f in known.items() if n not in entries and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise UserError(f"{_join(path, missing[0])} is not set; give it with {_join(path, missing[0])}=...")
    try:
        return cls(**values)
    except UserError as error:
        raise UserError(f"in {path or 'the config'}: {error}") from error


def _value(hint: Any, value: Any, path: str) -> Any:
    section, value_class = dataclass_in(hint), _dataclass_of_values(hint)
    if value_class is not None and isinstance(value, Mapping):
        return {str(name): _value(value_class, item, _join(path, str(name))) for name, item in value.items()}
    if isinstance(value, Mapping) and ("_target_" in value or section is not None):
        cls = locate(value["_target_"], path) if "_target_" in value else section
        assert cls is not None
        built = _construct(cls, value, path)
        if section is not None and not isinstance(built, section):
            raise UserError(f"{path}: {cls.__name__} is not a {section.__name__}")
        return built
    if hint is Any:
        raise UserError(
            f"{path}={value!r}: a section of settings is expected; choose an option of the group with {path}=<option>"
        )
    if section is not None and value is not None:
        keys = ", ".join(f.name for f in fields(section))
        raise UserError(f"{path}={value!r}: a section with the keys {keys} is expected")
    try:
        adapter = TypeAdapter(hint, config=_options(hint))
        return adapter.validate_python(value, strict=not isinstance(value, list))  # lists of YAML become tuples
    except ValidationError as error:
        if error.errors()[0]["type"] == "string_type" and value is not None:
            require_text(path, value)
        raise UserError(f"{path}={value!r}: {error.errors()[0]['msg']}") from error


def _options(hint: Any) -> ConfigDict | None:
    return None if dataclass_in(hint) else ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)


def _dataclass_of_values(hint: Any) -> type | None:
    """The dataclass of the values of a hint such as `dict[str, Part]`."""
    return dataclass_in(typing.get_args(hint)[1]) if typing.get_origin(hint) is dict else None


def locate(target: str, path: str) -> type:
    """Import the dataclass of a `_target_`. Raises UserError if it does not exist or is no dataclass."""
    module, _, name = target.rpartition(".")
    if os.getcwd() not in sys.path:  # `python -m` adds it, the installed command does not
        sys.path.append(os.getcwd())
    try:
        cls: type = vars(importlib.import_module(module))[name]
    except (ImportError, KeyError, ValueError) as error:
        raise UserError(f"{path}._target_={target}: no such class ({error})") from error
    if not is_dataclass(cls):
        raise UserError(f"{path}._target_={target}: a dataclass is expected; its fields are the keys")
    return cls


def _refuse_unknown(keys: Mapping[str, Any], known: Mapping[str, Any], path: str) -> None:
    for name in keys:
        if name not in known:
            if new := RENAMED.get(_join(path, name)):
                raise UserError(f"unknown key {_join(path, name)}: it was renamed to {new}")
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {_join(path, near[0])}?" if near else f"known keys: {', '.join(known)}"
            raise UserError(f"unknown key {_join(path, name)}; {hint}")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
