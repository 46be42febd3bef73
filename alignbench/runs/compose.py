"""Composes Hydra configs: of a run, of a job of a sweep, and of single config groups."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from alignbench.core.errors import UserError
from alignbench.runs import analysis_process
from alignbench.runs.config_errors import describe_config_error, is_config_error


def home() -> Path:
    """The folder that holds `conf` and `sweeps`: the checkout, or the package itself when installed from a wheel."""
    return analysis_process.checkout() or Path(__file__).resolve().parents[1]


def register_sweeps(folder: Path) -> None:
    """Make each file of `sweeps/` an option of the config group of that name, although it is outside `conf/`."""
    for file in sorted(folder.glob("*.yaml")):
        ConfigStore.instance().store(
            group="sweeps", name=file.stem, node=OmegaConf.load(file), package="_global_", provider=str(folder)
        )


def compose(*overrides: str, config_dir: str | Path | None = None) -> DictConfig:
    """Compose the config of one run, interpolations resolved.

    Args:
        overrides: Hydra overrides, such as `"algo=grpo"` or `"rl.steps=2"`.
        config_dir: A folder with more options of the config groups, searched in addition to `conf/`.

    Raises:
        UserError: an option or a key does not exist.
    """
    all_overrides = list(overrides)
    if config_dir is not None:
        folder = Path(config_dir).resolve()
        if not folder.is_dir():
            raise UserError(f"config_dir={config_dir}: no such folder")
        all_overrides.append(override("hydra.searchpath", [f"file://{folder}"]))
    try:
        return _compose(*all_overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if not is_config_error(error):
            raise
        raise UserError(describe(error, all_overrides)) from error


def describe(error: BaseException, overrides: Sequence[str]) -> str:
    """The message for an error of Hydra or OmegaConf that these overrides caused."""
    return describe_config_error(error, overrides, _compose, home() / "conf")


def _compose(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(home() / "conf"), version_base="1.3"):
        launched = ["hydra/launcher=basic", *overrides]  # the launcher of alignbench is registered by `alignbench` only
        composed = hydra_compose("config", overrides=launched, return_hydra_config=True)
    return without_hydra(composed)


def compose_job(loader: ConfigLoader, master: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The resolved config of one job of a sweep, equal to the config that the process of the job composes."""
    setup_globals()
    return without_hydra(loader.load_sweep_config(master, list(overrides)))


def chosen_options() -> tuple[list[str], DictConfig] | None:
    """The options chosen on the command line, as overrides, and their config; None outside of `hydra.main`.

    Presets, sweeps and Hydra's own groups are left out: they only set other keys.
    """
    if not (HydraConfig.initialized() and GlobalHydra.instance().is_initialized()):
        return None
    choices = HydraConfig.get().runtime.choices.items()
    chosen = [f"{group}={option}" for group, option in sorted(choices) if option and not group.startswith(EXCLUDED)]
    return chosen, hydra_compose(HydraConfig.get().job.config_name, overrides=chosen)


EXCLUDED = ("hydra/", "preset", "sweeps")
"""Config groups whose options only set keys of other groups."""


def override(key: str, value: Any) -> str:
    """The Hydra override that sets a key to a Python value.

    Raises:
        UserError: the value is not null, a boolean, a number, text, or a list or mapping of these.
    """
    return f"{key}={_literal(value, key)}"


def _literal(value: Any, key: str) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return QuotedString(text=str(value), quote=Quote.single).with_quotes()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{_literal(each, key)}" for name, each in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(_literal(each, key) for each in value) + "]"
    raise UserError(
        f"{key}={value!r}: {type(value).__name__} is not a valid config value: use None, a bool, a number, text, "
        "or lists and dicts of these"
    )


def compose_groups(options: dict[str, str], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Compose only the sections of these options, such as `{"reward": "exact_match"}`, with overrides applied.

    Raises:
        UserError: an option or a key does not exist.
    """
    try:
        return _compose_groups(options, overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if not is_config_error(error):
            raise
        folder = home() / "conf"
        raise UserError(describe_config_error(error, [], lambda: _compose_groups(options), folder)) from error


def _compose_groups(options: dict[str, str], overrides: Sequence[str] = ()) -> dict[str, Any]:
    defaults = ["_self_", *({group: option} for group, option in options.items())]
    ConfigStore.instance().store(name="groups", node={"defaults": defaults})
    with initialize_config_dir(str(home() / "conf"), version_base="1.3"):
        sections = OmegaConf.to_container(hydra_compose("groups", overrides=list(overrides)), resolve=True)
    assert isinstance(sections, dict)
    return {str(group): section for group, section in sections.items()}


def without_hydra(composed: DictConfig) -> DictConfig:
    """Resolve a composed config and remove its `hydra` section."""
    HydraConfig.instance().set_config(composed)
    config = copy.deepcopy(composed)
    with read_write(config), open_dict(config):
        del config["hydra"]
    OmegaConf.resolve(config)
    return config
