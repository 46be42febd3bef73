"""One fresh process per sweep job; goes on after a failure; skips what is finished."""

import hashlib
import importlib.util
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from filelock import FileLock
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from alignbench.core.comparability import differences, label_methods
from alignbench.core.errors import NotComparable, UserError
from alignbench.runs import analysis_process
from alignbench.runs.compose import compose_job
from alignbench.runs.config_errors import require_text
from alignbench.store.disk import make_folder, write_atomically
from alignbench.sweep.jobs import Job, JobRunner, say, settle, summarise

NAMELESS = {"seed", "study", "output_dir", "plan"}
"""Keys that never enter a study's name: more seeds of the same question belong to the same study."""

MOST_TOLD = 8
"""Differences between methods that are told; more of them have one cause."""

Typed = Sequence[Sequence[str]]
"""For each job of a sweep, its overrides as Hydra's sweeper spelled them."""


@dataclass
class IsolatedLauncherConf:
    _target_: str = "hydra_plugins.alignbench.IsolatedLauncher"
    n_jobs: int = 1
    seeds: dict[str, list[int]] = field(default_factory=dict)


class IsolatedLauncher(Launcher):
    """Runs `n_jobs` jobs at a time, each in an interpreter of its own: torch's seeds, threads and default dtypes, CUDA
    memory and the active MLflow run would leak from one job of a process into the next. `seeds` gives a method seeds of
    its own: of all that the sweep combines, only those of its jobs are run."""

    __module__ = "hydra_plugins.alignbench"  # the only namespace from which Hydra takes a launcher

    def __init__(self, n_jobs: int, seeds: Mapping[str, Sequence[int]]) -> None:
        self.n_jobs, self.seeds = n_jobs, seeds

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.loader, self.master = hydra_context.config_loader, config

    def launch(self, job_overrides: Typed, initial_job_idx: int) -> Sequence[JobReturn]:
        """Check all jobs, run them, then the analysis. Leaves with code 3 when a job failed, else with the analysis'.

        Raises:
            UserError: a config is wrong or two jobs are the same. Nothing was started then.
            NotComparable: the methods would not run under the same conditions. Nothing was started then either.
        """
        self._clear()
        self._refuse_what_it_cannot_do()
        job_overrides, configs = self._chosen(
            [(words, compose_job(self.loader, self.master, words)) for words in job_overrides]
        )
        study = require_text("study", agreed(configs, "study") or study_name(job_overrides))
        output_dir, planned = str(agreed(configs, "output_dir")), is_planned(configs)
        jobs = make_jobs(configs, job_overrides, study, self._arguments(), checked=not planned)
        conditions = refuse_unequal_conditions(jobs, configs)
        if planned:
            self._plan(jobs, configs, conditions)
        else:
            refuse_a_judge_that_cannot_be_asked(configs[0])
            write_study(jobs)
            self._run(jobs, output_dir)
        return [JobReturn(overrides=overrides, status=JobStatus.COMPLETED) for overrides in job_overrides]

    def _run(self, jobs: Sequence[Job], output_dir: str) -> None:
        failures = JobRunner(self.n_jobs).run(jobs)
        settle(jobs[0].identity.run_dir.parent)
        summarise(jobs, failures)
        study = jobs[0].identity.study
        say(f"Report of {study}:")
        analysis = analysis_process.report(study, output_dir)
        if failures or analysis:
            sys.exit(3 if failures else analysis)

    def _plan(self, jobs: Sequence[Job], configs: Sequence[DictConfig], conditions: Sequence[str]) -> None:
        """Tell what all of it would take."""
        from alignbench.planning.study_plan import StudyPlan
        from alignbench.runs.settings import resolve  # here, because only a sweep needs them

        arms: dict[str, list[dict[str, Any]]] = {}
        for arm, config in zip(label_methods([job.describe() for job in jobs]), configs, strict=True):
            arms.setdefault(arm, []).append(resolve(config))
        StudyPlan(arms, self.n_jobs).show(conditions)

    def _clear(self) -> None:
        """Remove what Hydra has put down: study.json says it better, and a plan leaves nothing."""
        folder = Path(self.master.hydra.sweep.dir)
        (folder / "multirun.yaml").unlink(missing_ok=True)
        with suppress(OSError):  # there are runs in it
            folder.rmdir()

    def _refuse_what_it_cannot_do(self) -> None:
        if self.n_jobs < 1:
            raise UserError(f"hydra.launcher.n_jobs={self.n_jobs}: at least one job must run at a time")
        if self.master.hydra.sweeper.get("max_batch_size") is not None:
            raise UserError("hydra.sweeper.max_batch_size: a study is one batch; use hydra.launcher.n_jobs instead")

    def _chosen(self, jobs: Sequence[tuple[Sequence[str], DictConfig]]) -> tuple[Typed, list[DictConfig]]:
        """The jobs whose seed is one of their method's."""
        unknown = set(self.seeds) - {config.names.method for _, config in jobs}
        if unknown:
            raise UserError(f"hydra.launcher.seeds: this sweep has no method {', '.join(sorted(unknown))}")
        chosen = [(words, config) for words, config in jobs
                  if config.seed in self.seeds.get(config.names.method, [config.seed])]  # fmt: skip
        if not chosen:
            raise UserError("hydra.launcher.seeds: the sweep runs none of these seeds")
        return [words for words, _ in chosen], [config for _, config in chosen]

    def _arguments(self) -> list[str]:
        """What was typed for Hydra itself and holds for every job: where configs are found, and hydra.* keys."""
        hydra = self.master.hydra
        folders = {source.provider: source.path for source in hydra.runtime.config_sources}
        arguments = ["--config-path", folders["main"], "--config-name", hydra.job.config_name]
        if "command-line" in folders:
            arguments += ["--config-dir", folders["command-line"]]
        ours = ("hydra.mode=", "hydra.launcher.", "hydra.sweeper.", "hydra.sweep.")
        return [*arguments, *(typed for typed in hydra.overrides.hydra if not typed.startswith(ours)), "hydra.mode=RUN"]


@cache
def register() -> None:
    """Make `hydra/launcher=isolated` known to Hydra."""
    ConfigStore.instance().store(group="hydra/launcher", name="isolated", node=IsolatedLauncherConf)
    Plugins.instance().register(IsolatedLauncher)
    if importlib.util.find_spec("hydra_plugins") is None:  # unless another plugin is installed, nobody has made it
        sys.modules["hydra_plugins"] = ModuleType("hydra_plugins")
    package: Any = importlib.import_module("hydra_plugins")
    package.alignbench = sys.modules["hydra_plugins.alignbench"] = sys.modules[__name__]


def is_planned(configs: Sequence[DictConfig]) -> bool:
    """Whether the sweep is only to be planned."""
    from alignbench.runs.settings import is_plan, resolve  # here, because only a sweep needs them

    return any(is_plan(resolve(config)) for config in configs)


def agreed(configs: Sequence[DictConfig], key: str) -> Any:
    """The value of `key` in all jobs.

    Raises:
        UserError: the sweep goes over this key.
    """
    values = list(dict.fromkeys(config[key] for config in configs))
    if len(values) > 1:
        raise UserError(f"{key}={','.join(map(str, values))}: one sweep is one study, so {key} cannot differ within it")
    return values[0]


def study_name(job_overrides: Typed) -> str:
    """A name from what was typed, seeds aside: `algo=ppo,grpo seed=1,2` is `algo-ppo-grpo`, in whatever order."""
    values: dict[str, dict[str, None]] = {}
    for override in (override for overrides in job_overrides for override in overrides):
        key, _, value = override.partition("=")
        if key not in NAMELESS:
            values.setdefault(key, {})[value] = None
    full = "-".join("-".join([key, *values[key]]) for key in sorted(values)) or "seeds"
    name = re.sub(r"[^A-Za-z0-9._]+", "-", full)[:80].strip("-.")
    return name if name == full else f"{name}-{hashlib.sha256(full.encode()).hexdigest()[:8]}"


def make_jobs(
    configs: Sequence[DictConfig], job_overrides: Typed, study: str, arguments: Sequence[str], checked: bool
) -> list[Job]:
    """Check every config, where that is not done later, and say who each job is.

    Raises:
        UserError: a config is wrong, or two jobs would be the same run.
    """
    from alignbench.runs.settings import check, identify  # here, because only a sweep needs them

    for config in configs:
        config.study = study
        if checked:
            check(config)
    identities = [identify(config) for config in configs]
    for run_dir, count in Counter(identity.run_dir for identity in identities).items():
        if count > 1:
            raise UserError(f"{count} jobs of this sweep are one run, {run_dir.name}: what is swept changes nothing")
    short = [f"{identity.method} s{identity.seed}" for identity in identities]
    program = (sys.executable, "-m", "alignbench")
    labels = short if len(set(short)) == len(short) else [identity.run_dir.name for identity in identities]
    return [
        Job(identity, label, tuple(overrides), (*program, *arguments, *overrides, f"study='{study}'"))
        for identity, label, overrides in zip(identities, labels, job_overrides, strict=True)
    ]


def refuse_unequal_conditions(jobs: Sequence[Job], configs: Sequence[DictConfig]) -> list[str]:
    """Only `algo` and what analysis.allow names may differ between methods; runs that the study has already count too.

    Returns in words what differs.

    Raises:
        NotComparable: something else differs.
    """
    folder = jobs[0].identity.run_dir.parent
    earlier = earlier_runs(folder)
    now = [(job.describe(), OmegaConf.to_container(config)) for job, config in zip(jobs, configs, strict=True)]
    plan = {entry["key"]: (entry, config) for entry, config in [*earlier, *now]}
    labels = label_methods([entry for entry, _ in plan.values()])
    runs = [(label, config) for label, (_, config) in zip(labels, plan.values(), strict=True)]
    different, keys = differences(runs, configs[0].analysis.allow)
    refused = [found for found in different if not found.allowed]
    if refused:
        named = ",".join(found.key for found in refused)
        told = "\n".join(f"  {found}" for found in refused[:MOST_TOLD])
        more = f"\n  and {len(refused) - MOST_TOLD} more" if len(refused) > MOST_TOLD else ""
        there = f" {folder} has runs already; another study=NAME begins without them." if earlier else ""
        raise NotComparable(
            f"the methods of this study would not run under the same conditions:\n{told}{more}\nGive all of them one "
            f"value, or declare that they may differ with 'analysis.allow=[{named}]'.{there} Nothing was started."
        )
    return [f"the same: of {keys} keys {len(different)} differ, each of them allowed", *map(str, different)]


def refuse_a_judge_that_cannot_be_asked(config: DictConfig) -> None:
    """Raise UserError before a study whose judge lacks its key, or has left, rather than after days of training."""
    if "model" not in config.judge:
        return
    question = {
        "seeds": {},
        "paired": False,
        "judge": OmegaConf.to_container(config.judge),
        "prompts": [],
        "answer_tokens": 0,
    }
    problems = analysis_process.forecast(question)["problems"]
    if problems:
        raise UserError("\n".join([*problems, "Nothing was started; judge=none asks nobody."]))


def earlier_runs(folder: Path) -> list[tuple[dict[str, Any], Any]]:
    """The planned runs of a study that have left their config, as entries of study.json with it."""
    file = folder / "study.json"
    planned = json.loads(file.read_text())["planned"] if file.exists() else []
    homes = [(entry, folder / entry["run_dir"] / "config.yaml") for entry in planned]
    return [(entry, OmegaConf.to_container(OmegaConf.load(home))) for entry, home in homes if home.exists()]


def write_study(jobs: Sequence[Job]) -> None:
    """Write down what is planned, so that the analysis knows what is missing. Adds to what was planned before."""
    file = make_folder(jobs[0].identity.run_dir.parent) / "study.json"
    with FileLock(file.with_suffix(".lock")):  # two sweeps of one study may begin at once
        earlier = json.loads(file.read_text())["planned"] if file.exists() else []
        planned = {entry["key"]: entry for entry in [*earlier, *(job.describe() for job in jobs)]}
        study = {"study": jobs[0].identity.study, "planned": list(planned.values()), "command": sys.argv}
        write_atomically(file, json.dumps(study, indent=2) + "\n")
