"""Config -> checked objects: unknown keys, wrong types and values out of range are refused by name."""

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
    """Where a run is written down, beside its own folder."""

    enabled: bool = True
    """Off writes metrics.jsonl only."""
    uri: str | None = None
    """An MLflow tracking server; null is SQLite under output_dir."""
    experiment: str = "alignbench"
    """The MLflow experiment."""
    samples: Size = 8
    """Rollouts kept as a table at every evaluation."""

    def __post_init__(self) -> None:
        if urlsplit(self.uri or "").password is not None:
            raise UserError(
                "uri has a password in it, and every run writes its config down: leave it out, and set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment instead"
            )


@dataclass(frozen=True, kw_only=True)
class Planning:
    """Whether to tell what a run will take in place of running it; plan=true says the same as plan.enabled=true."""

    enabled: bool = False
    """Check and count everything, train nothing, write nothing."""
    probe: bool = False
    """Plan, and time two steps of each phase in a folder that is gone afterwards."""

    @property
    def requested(self) -> bool:
        """Whether there is a plan to tell."""
        return self.enabled or self.probe


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What is declared before a study runs, and read by the report."""

    metric: str | None = None
    """The one metric that decides; null is final/gold where true quality is known, else final/accuracy, else
    final/avg_reward."""
    baseline: str | None = None
    """The method that others are compared with; null is ppo where it is there."""
    margin: Positive | None = None
    """The difference that would be too small to matter, in units of the metric; null declares none."""
    pairing: Literal["none", "seed"] = "none"
    """Seed: runs are compared seed by seed, where the manifests show that seeds of methods shared their randomness."""
    allow: tuple[str, ...] = ()
    """Config keys beside algo.* that may differ between methods."""
    price_per_hour: NonNegative | None = None
    """Dollars for an hour of this machine; null leaves prices out."""
    expected_memory_gb: dict[str, list[NonNegative]] | None = None
    """The least and the most peak memory expected of a method, such as {ppo: [4, 5]}; null expects nothing."""

    def __post_init__(self) -> None:
        for method, span in (self.expected_memory_gb or {}).items():
            if len(span) != 2 or span[0] > span[1]:
                raise UserError(f"expected_memory_gb.{method}={span}: give the least and the most, such as [4, 5]")


@dataclass(frozen=True, kw_only=True)
class Names:
    """The chosen option of each group that is part of a run's name; set by the options themselves."""

    method: str
    """The option of `algo`; a name of your own separates variants of one method in the report."""
    model: str
    """The option of `model`."""
    data: str
    """The option of `data`."""
    reward: str
    """The option of `reward`."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """One run, every part of it built and checked."""

    seed: Size
    """Seed of the run: prompt order, sampling and new weights."""
    study: str | None
    """The study that the run belongs to; null is `single`, or a name made from the overrides of a sweep."""
    output_dir: str
    """Folder of runs, artifacts, reports and mlflow.db."""
    plan: Planning
    """Print what a run will take instead of running it."""
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
    """Training of the reward model, where the reward needs one (`reward=bradley_terry`)."""
    rl: RL
    """Reinforcement learning: budget, sampling and optimizer, the same for every method."""
    eval: Evaluate
    """Evaluation while training and at the end."""
    invariants: Invariants
    """Checks while training."""
    tracking: Tracking
    """MLflow."""
    analysis: Analysis
    """What is declared before a study runs, and read by its report."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a run is called and where it lives."""

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
    """Every object of a run, from a resolved config."""
    settings: RunSettings = _construct(RunSettings, config, "")
    return settings


def is_plan(config: Mapping[str, Any]) -> bool:
    """Whether a resolved config asks for a plan, whatever else is right or wrong in it."""
    return bool(_value(Planning, config["plan"], "plan").requested)


def build_valid_sections(config: Mapping[str, Any]) -> tuple[RunSettings, dict[str, UserError]]:
    """The job with None in place of each section that is wrong, and what is wrong with these."""
    hints, parts, wrong = (
        typing.get_type_hints(RunSettings, include_extras=True),
        dict[str, Any](),
        dict[str, UserError](),
    )
    _refuse_unknown(config, {knob.name: knob for knob in fields(RunSettings)}, "")
    for name, hint in hints.items():
        try:
            parts[name] = _value(hint, config[name], name)
        except UserError as error:
            parts[name], wrong[name] = None, error
    return RunSettings(**parts), wrong


def identify(cfg: DictConfig | Mapping[str, Any]) -> Identity:
    """The name, key and folder of the run that a config describes."""
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
    """Raise UserError where a name that becomes part of a path is not text or not a safe folder name."""
    named = {"study": config["study"] or "single", "output_dir": config["output_dir"]}
    named |= {f"names.{what}": value for what, value in config["names"].items()}
    for key, value in named.items():
        require_text(key, value)
        if key != "output_dir" and (not value.strip(".") or set(value) - set(SAFE)):
            raise UserError(f"{key}={value!r} names a folder: use letters, digits, dot, dash and underscore")


def section(config: Mapping[str, Any], path: str) -> Any:
    """The object of one section, such as `reward`, from a resolved config."""
    return _value(Any, config, path)


def flatten(config: Any, path: str = "") -> dict[str, Any]:
    """A nested config as one level of dotted keys."""
    if not isinstance(config, dict):
        return {path: config}
    return {k: v for name, part in config.items() for k, v in flatten(part, f"{path}.{name}" if path else name).items()}


def conditions(config: Mapping[str, Any], made_of: Mapping[str, Any]) -> dict[str, Any]:
    """All that shapes a run's numbers, as one level of dotted keys with plain values."""
    settings = {name: part for name, part in config.items() if name not in NOT_PART_OF_A_RUN}
    return flatten(json.loads(json.dumps({**settings, **made_of}, default=str)))


def custom_functions(reward: Mapping[str, Any]) -> list[str]:
    """The functions of the user's own that a reward, or a part of one, is made of."""
    return [value for name, value in flatten(dict(reward)).items() if name.rpartition(".")[2] == "function"]


SAFE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()


def _construct(cls: type, node: Mapping[str, Any], path: str) -> Any:
    """An object of a dataclass from a config node, its own parts built first."""
    hints = typing.get_type_hints(cls, include_extras=True)
    knobs = {f.name: f for f in fields(cls)}
    given = {str(k): v for k, v in node.items() if k != "_target_" and v != "???"}  # which is YAML's "must be given"
    _refuse_unknown(given, knobs, path)
    values = {name: _value(hints[name], value, _join(path, name)) for name, value in given.items()}
    missing = [n for n, f in knobs.items() if n not in given and f.default is MISSING and f.default_factory is MISSING]
    if missing:
        raise UserError(f"{_join(path, missing[0])} is not set; give it with {_join(path, missing[0])}=...")
    try:
        return cls(**values)
    except UserError as error:
        raise UserError(f"in {path or 'the config'}: {error}") from error


def _value(hint: Any, value: Any, path: str) -> Any:
    part, each = dataclass_in(hint), _dataclass_of_each(hint)
    if each is not None and isinstance(value, Mapping):
        return {str(name): _value(each, one, _join(path, str(name))) for name, one in value.items()}
    if isinstance(value, Mapping) and ("_target_" in value or part is not None):
        cls = locate(value["_target_"], path) if "_target_" in value else part
        assert cls is not None
        built = _construct(cls, value, path)
        if part is not None and not isinstance(built, part):
            raise UserError(f"{path}: {cls.__name__} is not a {part.__name__}")
        return built
    if hint is Any:
        raise UserError(
            f"{path}={value!r}: a section of settings is expected; choose an option of the group with {path}=<option>"
        )
    if part is not None and value is not None:
        keys = ", ".join(f.name for f in fields(part))
        raise UserError(f"{path}={value!r}: a section with the keys {keys} is expected")
    try:
        adapter = TypeAdapter(hint, config=_options(hint))
        return adapter.validate_python(value, strict=not isinstance(value, list))  # YAML's lists fill our tuples
    except ValidationError as error:
        if error.errors()[0]["type"] == "string_type" and value is not None:
            require_text(path, value)
        raise UserError(f"{path}={value!r}: {error.errors()[0]['msg']}") from error


def _options(hint: Any) -> ConfigDict | None:
    return None if dataclass_in(hint) else ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)


def _dataclass_of_each(hint: Any) -> type | None:
    """The dataclass of the values that a hint such as `dict[str, Part]` speaks of."""
    return dataclass_in(typing.get_args(hint)[1]) if typing.get_origin(hint) is dict else None


def locate(target: str, path: str) -> type:
    """The dataclass of a `_target_`. Raises UserError where there is none."""
    module, _, name = target.rpartition(".")
    if os.getcwd() not in sys.path:  # `python -m` adds it, the installed command does not
        sys.path.append(os.getcwd())
    try:
        cls: type = vars(importlib.import_module(module))[name]
    except (ImportError, KeyError, ValueError) as error:
        raise UserError(f"{path}._target_={target}: there is no such class ({error})") from error
    if not is_dataclass(cls):
        raise UserError(f"{path}._target_={target}: it must be a dataclass, whose fields are its keys")
    return cls


def _refuse_unknown(given: Mapping[str, Any], knobs: Mapping[str, Any], path: str) -> None:
    for name in given:
        if name not in knobs:
            if new := RENAMED.get(_join(path, name)):
                raise UserError(f"there is no key {_join(path, name)}: it was renamed to {new}")
            near = difflib.get_close_matches(name, knobs, n=1)
            hint = f"did you mean {_join(path, near[0])}?" if near else f"known keys: {', '.join(knobs)}"
            raise UserError(f"there is no key {_join(path, name)}; {hint}")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
