"""The door: compose a config, run the pipeline; imports nothing heavy."""

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alignbench import analyst, launcher
from alignbench.core import collector
from alignbench.core.errors import InvariantBroken, NotComparable, UserError
from alignbench.core.hub import MODEL_REMEDY, require_hub

# What libraries read at import time: nothing is reported to anybody, and nothing chats between our lines.
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "BITSANDBYTES_NOWELCOME": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait make everything slower on shared cores
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}

HELP = """\
alignbench: which alignment algorithm is better under the same conditions, by how much, how sure are we, at what cost?

  python -m alignbench algo=grpo model=tiny seed=42                one run
  python -m alignbench --multirun seed=42,123,777 algo=ppo,grpo    a study: six runs, then the report
  python -m alignbench sweeps=ppo_vs_grpo                          the same, by name
  python -m alignbench ... plan=true                               check and count everything, train nothing
  python -m alignbench ... plan.probe=true                         the same, and time two steps of each phase
  python -m alignbench ... --cfg job                               print the config that these words make

Groups, group=option:
{groups}

Keys, key=value: all of them, explained, are in {config}
A sweep: hydra.launcher.n_jobs=N runs N jobs side by side; typed again, the same command runs only what is missing.
Your own options: --config-dir FOLDER. Flags of Hydra: --hydra-help
"""


def main() -> None:
    """The console script. Exit codes: 0 done, 1 broken or no such config, 2 a mistake in the config or the data,
    130 interrupted; a sweep adds 3 (a job failed) and 4 (the fairness check refuses the comparison)."""
    sys.argv[0] = "alignbench"
    prepare_environment()
    if {"--help", "-h"} & set(sys.argv[1:]):  # Hydra's own help takes longer than a second
        sys.stdout.write(help_text(home()))
        return
    sys.argv[1:] = one_plan(sys.argv[1:])
    with reported():
        launcher.register()
        register_sweeps(home() / "sweeps")
        hydra.main(config_path=str(home() / "conf"), config_name="config", version_base="1.3")(job)()


def job(cfg: DictConfig) -> None:
    """What Hydra calls for one run. Errors are told before Hydra sees them, for it would add lines of its own."""
    with reported():
        ask_for_the_model(cfg)
        collector.rest()  # until the pipeline has imported all it needs
        from alignbench.pipeline import run  # here, because it imports torch: --help must answer at once

        run(cfg)


def ask_for_the_model(cfg: DictConfig) -> None:
    """Refuse a hub name that can be had from nowhere before torch is imported, which alone takes seconds.

    A plan asks for itself, and tells all that is missing at once.
    """
    if cfg.plan is True or (OmegaConf.is_dict(cfg.plan) and True in cfg.plan.values()):
        return
    model = cfg.model if OmegaConf.is_dict(cfg.model) else {}
    name = str(model.get("name"))
    if model.get("path") is None and "/" in name:
        require_hub(name, "model", MODEL_REMEDY)


def one_plan(words: list[str]) -> list[str]:
    """Beside plan.probe=true, plan=true says nothing more, and Hydra takes only one of the two."""
    return [word for word in words if word != "plan=true"] if any(w.startswith("plan.") for w in words) else words


def home() -> Path:
    """The folder that holds `conf` and `sweeps`: the checkout, or the package itself when installed from a wheel."""
    return analyst.checkout() or Path(__file__).parent


def help_text(folder: Path) -> str:
    """What can be typed, with the options of every config group."""
    files = [*sorted(folder.glob("conf/*/*.yaml")), *sorted(folder.glob("sweeps/*.yaml"))]
    groups = [f"  {group:<10}{', '.join(file.stem for file in options)}" for group, options in groupby(files, group_of)]
    return HELP.format(groups="\n".join(groups), config=folder / "conf" / "config.yaml")


def group_of(option: Path) -> str:
    return option.parent.name


def register_sweeps(folder: Path) -> None:
    """Make each file of `sweeps/` an option of the config group of that name, though it stands outside `conf/`."""
    for file in sorted(folder.glob("*.yaml")):
        ConfigStore.instance().store(
            group="sweeps", name=file.stem, node=OmegaConf.load(file), package="_global_", provider=str(folder)
        )


def prepare_environment() -> None:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        os.environ["ALIGNBENCH_TRACEBACK"] = "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print: every error is told once, below
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)  # ended from outside = interrupted: say so on disk


@contextmanager
def reported() -> Iterator[None]:
    """Turn whatever goes wrong inside into one message on stderr and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        leave("interrupted", 130)
    except Exception as error:  # noqa: BLE001 - the last stop of every error
        if os.environ.get("ALIGNBENCH_TRACEBACK") == "1":
            traceback.print_exc()
        mistake = isinstance(error, UserError | OSError) and not isinstance(error, HydraException)
        leave(f"error: {describe(error)}", 4 if isinstance(error, NotComparable) else 2 if mistake else 1)


def describe(error: Exception) -> str:
    """One message for a person: what was wrong, where, what to do."""
    if isinstance(error, HydraException | OmegaConfBaseException):
        return describe_config_error(error)
    if "Config group override must be" in str(error):  # what Hydra raises for algo=null or model=3
        return f"{error}: choose one of the options that --help lists, as in algo=ppo"
    if isinstance(error, UserError | InvariantBroken):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return f"{type(error).__name__}: {error} (ALIGNBENCH_TRACEBACK=1 shows where)"


def describe_config_error(error: Exception) -> str:
    """Hydra's message and its cause, without the search path, Python types and advice that would not help here."""
    told = "\n".join(str(part) for part in (error, error.__cause__) if part is not None)
    lines = told.split("Config search path:")[0].splitlines()
    useless = ("To append to your", "object_type=", "reference_type=")
    told = "\n".join(line for line in lines if line.strip() and not line.strip().startswith(useless))
    if "is not in struct" not in told:
        return told
    return f"{told}\n--cfg job shows all keys; a section that is null is set whole, as in 'model.lora={{rank:16}}'"


def leave(message: str, code: int) -> None:
    sys.stdout.flush()
    sys.stderr.write(message + "\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
