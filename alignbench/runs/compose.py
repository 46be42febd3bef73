"""Config groups and overrides -> one config: the only place where Hydra composes outside a sweep."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from alignbench.runs import analysis_process


def home() -> Path:
    """The folder that holds `conf` and `sweeps`: the checkout, or the package itself when installed from a wheel."""
    return analysis_process.checkout() or Path(__file__).resolve().parents[1]


def register_sweeps(folder: Path) -> None:
    """Make each file of `sweeps/` an option of the config group of that name, though it is outside `conf/`."""
    for file in sorted(folder.glob("*.yaml")):
        ConfigStore.instance().store(
            group="sweeps", name=file.stem, node=OmegaConf.load(file), package="_global_", provider=str(folder)
        )


def compose(*overrides: str) -> DictConfig:
    """The config of one run, its interpolations filled in.

    Example: `compose("algo=grpo", "model=tiny", "seed=42")`.
    """
    with initialize_config_dir(str(home() / "conf"), version_base="1.3"):
        composed = hydra_compose("config", overrides=list(overrides), return_hydra_config=True)
    return without_hydra(composed)


def compose_groups(options: dict[str, str], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The sections of these options alone, such as `{"reward": "exact_match"}`, changed by overrides."""
    defaults = ["_self_", *({group: option} for group, option in options.items())]
    ConfigStore.instance().store(name="groups", node={"defaults": defaults})
    with initialize_config_dir(str(home() / "conf"), version_base="1.3"):
        sections = OmegaConf.to_container(hydra_compose("groups", overrides=list(overrides)), resolve=True)
    assert isinstance(sections, dict)
    return {str(group): section for group, section in sections.items()}


def without_hydra(composed: DictConfig) -> DictConfig:
    """A composed config resolved while Hydra knows its choices, without Hydra's own section."""
    HydraConfig.instance().set_config(composed)
    config = copy.deepcopy(composed)
    with read_write(config), open_dict(config):
        del config["hydra"]
    OmegaConf.resolve(config)
    return config
