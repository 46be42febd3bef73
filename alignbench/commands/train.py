"""`alignbench` with Hydra overrides: starts a run or a sweep, or prints its plan; `--help` starts fast."""

import sys
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from alignbench.commands.error_messages import report_errors
from alignbench.core import gc_pause
from alignbench.core.hub import MODEL_REMEDY, require_hub
from alignbench.runs.analysis_process import checkout

if TYPE_CHECKING:
    from omegaconf import DictConfig

HELP = """\
alignbench: compares alignment algorithms under equal conditions: effect size, uncertainty and cost.

  alignbench algo=grpo model=tiny seed=42               one run
  alignbench --multirun seed=42,123,777 algo=ppo,grpo   a study: six runs, then the report
  alignbench sweeps=ppo_vs_grpo                         the same, by name
  alignbench ... plan=true                              check the config and estimate the cost, train nothing
  alignbench ... plan.probe=true                        the same, and time two steps of each stage
  alignbench ... --cfg job                              print the composed config

Verbs, each with --help:
{verbs}

Groups, group=option:
{groups}

Keys, key=value: documented in {config}
Sweeps: hydra.launcher.n_jobs=N runs N jobs in parallel; repeat the command to run only the missing runs.
Custom options: --config-dir FOLDER. Flags of Hydra: --hydra-help
"""


def main(verbs: Mapping[str, str]) -> None:
    """Start or plan the runs that the command line describes."""
    if {"--help", "-h"} & set(sys.argv[1:]):  # Hydra's help takes more than a second
        sys.stdout.write(help_text(verbs))
        return
    with report_errors():
        import hydra

        from alignbench.runs.compose import home, register_sweeps
        from alignbench.sweep import launcher

        sys.argv[1:] = drop_redundant_plan(sys.argv[1:])
        launcher.register()
        register_sweeps(home() / "sweeps")
        hydra.main(config_path=str(home() / "conf"), config_name="config", version_base="1.3")(job)()


def job(cfg: "DictConfig") -> None:
    """Run or plan one config; Hydra calls it. Errors are reported here, before Hydra adds its own lines to them."""
    with report_errors():
        if is_plan(cfg):
            from alignbench.planning import run_plan
            from alignbench.runs.settings import resolve

            run_plan.show(resolve(cfg))
            return
        require_model(cfg)
        gc_pause.pause()  # until the pipeline has imported everything it needs
        from alignbench.runs.pipeline import run  # imports torch, which takes seconds

        run(cfg)


def is_plan(cfg: "DictConfig") -> bool:
    """Whether a config requests a plan instead of a run."""
    return cfg.plan is True or (isinstance(cfg.plan, Mapping) and True in cfg.plan.values())


def require_model(cfg: "DictConfig") -> None:
    """Raise UserError for a hub model that is neither cached nor reachable, before the slow import of torch."""
    model = cfg.model if isinstance(cfg.model, Mapping) else {}
    name = str(model.get("name"))
    if model.get("path") is None and "/" in name:
        require_hub(name, "model", MODEL_REMEDY)


def drop_redundant_plan(arguments: list[str]) -> list[str]:
    """Remove plan=true if plan.probe=true is given, which includes it: Hydra rejects the two together."""
    if any(argument.startswith("plan.") for argument in arguments):
        return [argument for argument in arguments if argument != "plan=true"]
    return arguments


def help_text(verbs: Mapping[str, str]) -> str:
    """The help of the command line: verbs, and the options of every config group."""
    folder = checkout() or Path(__file__).resolve().parents[1]
    files = [*sorted(folder.glob("conf/*/*.yaml")), *sorted(folder.glob("sweeps/*.yaml"))]
    groups = [f"  {group:<10}{', '.join(file.stem for file in options)}" for group, options in groupby(files, group_of)]
    return HELP.format(
        groups="\n".join(groups),
        config=folder / "conf" / "config.yaml",
        verbs="\n".join(f"  {verb:<14}{what}" for verb, what in verbs.items()),
    )


def group_of(option: Path) -> str:
    return option.parent.name
