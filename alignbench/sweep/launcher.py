"""Hydra launcher that runs each job of a sweep in its own process, continues after failures and skips finished runs."""

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
from alignbench.sweep.jobs import Job, JobRunner, print_line, print_summary, sync_tracking

UNNAMED_KEYS = {"seed", "study", "output_dir", "plan"}
"""Keys that are not part of a study's name: runs with more seeds belong to the same study."""

MAX_DIFFERENCES = 8
"""Maximum number of differences between methods in an error message."""

JobOverrides = Sequence[Sequence[str]]
"""The overrides of each job of a sweep, in the spelling of Hydra's sweeper."""


@dataclass
class IsolatedLauncherConf:
    """Hydra config of IsolatedLauncher."""

    _target_: str = "hydra_plugins.alignbench.IsolatedLauncher"
    n_jobs: int = 1
    seeds: dict[str, list[int]] = field(default_factory=dict)


class IsolatedLauncher(Launcher):
    """Runs up to `n_jobs` jobs in parallel, each in its own interpreter.

    In one process, torch's seeds, threads and default dtypes, CUDA memory and the active MLflow run would leak from one
    job into the next. `seeds` restricts a method to the listed seeds; its other jobs in the sweep are not run.
    """

    __module__ = "hydra_plugins.alignbench"  # Hydra loads launchers only from this namespace

    def __init__(self, n_jobs: int, seeds: Mapping[str, Sequence[int]]) -> None:
        self.n_jobs, self.seeds = n_jobs, seeds

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the config loader and the config of the sweep; called by Hydra."""
        self.loader, self.master = hydra_context.config_loader, config

    def launch(self, job_overrides: JobOverrides, initial_job_idx: int) -> Sequence[JobReturn]:
        """Check all jobs, run them, then the analysis. Exits with code 3 if a job failed, else with the analysis' code.

        Raises:
            UserError: a config is invalid or two jobs are the same run. No job is started.
            NotComparable: the methods would not run under the same conditions. No job is started.
        """
        self._remove_hydra_files()
        self._check_settings()
        job_overrides, configs = self._select_jobs(
            [(overrides, compose_job(self.loader, self.master, overrides)) for overrides in job_overrides]
        )
        study = require_text("study", common_value(configs, "study") or study_name(job_overrides))
        output_dir, planned = str(common_value(configs, "output_dir")), is_planned(configs)
        jobs = make_jobs(configs, job_overrides, study, self._arguments(), checked=not planned)
        conditions = check_conditions(jobs, configs)
        if planned:
            self._plan(jobs, configs, conditions)
        else:
            check_judge(configs[0])
            write_study(jobs)
            self._run(jobs, output_dir)
        return [JobReturn(overrides=overrides, status=JobStatus.COMPLETED) for overrides in job_overrides]

    def _run(self, jobs: Sequence[Job], output_dir: str) -> None:
        failures = JobRunner(self.n_jobs).run(jobs)
        sync_tracking(jobs[0].identity.run_dir.parent)
        print_summary(jobs, failures)
        study = jobs[0].identity.study
        print_line(f"Report of {study}:")
        analysis = analysis_process.report(study, output_dir)
        if failures or analysis:
            sys.exit(3 if failures else analysis)

    def _plan(self, jobs: Sequence[Job], configs: Sequence[DictConfig], conditions: Sequence[str]) -> None:
        """Print the plan of the study."""
        from alignbench.planning.study_plan import StudyPlan
        from alignbench.runs.settings import resolve  # imported late: only sweeps need it

        methods: dict[str, list[dict[str, Any]]] = {}
        for method, config in zip(label_methods([job.describe() for job in jobs]), configs, strict=True):
            methods.setdefault(method, []).append(resolve(config))
        StudyPlan(methods, self.n_jobs).show(conditions)

    def _remove_hydra_files(self) -> None:
        """Remove multirun.yaml, which study.json replaces, and the sweep folder if it is empty."""
        folder = Path(self.master.hydra.sweep.dir)
        (folder / "multirun.yaml").unlink(missing_ok=True)
        with suppress(OSError):  # the folder contains runs
            folder.rmdir()

    def _check_settings(self) -> None:
        if self.n_jobs < 1:
            raise UserError(f"hydra.launcher.n_jobs={self.n_jobs}: must be at least 1")
        if self.master.hydra.sweeper.get("max_batch_size") is not None:
            raise UserError("hydra.sweeper.max_batch_size: a study is one batch; use hydra.launcher.n_jobs instead")

    def _select_jobs(self, jobs: Sequence[tuple[Sequence[str], DictConfig]]) -> tuple[JobOverrides, list[DictConfig]]:
        """The overrides and configs of the jobs whose seed is selected for their method by `seeds`."""
        unknown = set(self.seeds) - {config.names.method for _, config in jobs}
        if unknown:
            raise UserError(f"hydra.launcher.seeds: this sweep has no method {', '.join(sorted(unknown))}")
        selected = [(overrides, config) for overrides, config in jobs
                  if config.seed in self.seeds.get(config.names.method, [config.seed])]  # fmt: skip
        if not selected:
            raise UserError("hydra.launcher.seeds: the sweep has no job with these seeds")
        return [overrides for overrides, _ in selected], [config for _, config in selected]

    def _arguments(self) -> list[str]:
        """Hydra's command-line arguments for every job: config folders, config name and hydra.* overrides."""
        hydra = self.master.hydra
        folders = {source.provider: source.path for source in hydra.runtime.config_sources}
        arguments = ["--config-path", folders["main"], "--config-name", hydra.job.config_name]
        if "command-line" in folders:
            arguments += ["--config-dir", folders["command-line"]]
        launcher_keys = ("hydra.mode=", "hydra.launcher.", "hydra.sweeper.", "hydra.sweep.")
        return [
            *arguments,
            *(override for override in hydra.overrides.hydra if not override.startswith(launcher_keys)),
            "hydra.mode=RUN",
        ]


@cache
def register() -> None:
    """Register the launcher with Hydra as `hydra/launcher=isolated`."""
    ConfigStore.instance().store(group="hydra/launcher", name="isolated", node=IsolatedLauncherConf)
    Plugins.instance().register(IsolatedLauncher)
    if importlib.util.find_spec("hydra_plugins") is None:  # exists only if another plugin is installed
        sys.modules["hydra_plugins"] = ModuleType("hydra_plugins")
    package: Any = importlib.import_module("hydra_plugins")
    package.alignbench = sys.modules["hydra_plugins.alignbench"] = sys.modules[__name__]


def is_planned(configs: Sequence[DictConfig]) -> bool:
    """Whether any job requests a plan instead of training."""
    from alignbench.runs.settings import is_plan, resolve  # imported late: only sweeps need it

    return any(is_plan(resolve(config)) for config in configs)


def common_value(configs: Sequence[DictConfig], key: str) -> Any:
    """The value of `key` that all jobs share.

    Raises:
        UserError: the sweep varies this key.
    """
    values = list(dict.fromkeys(config[key] for config in configs))
    if len(values) > 1:
        raise UserError(f"{key}={','.join(map(str, values))}: one sweep is one study, so {key} cannot differ within it")
    return values[0]


def study_name(job_overrides: JobOverrides) -> str:
    """A name from the swept overrides except seeds, in any order: `algo=ppo,grpo seed=1,2` gives `algo-ppo-grpo`."""
    values: dict[str, dict[str, None]] = {}
    for override in (override for overrides in job_overrides for override in overrides):
        key, _, value = override.partition("=")
        if key not in UNNAMED_KEYS:
            values.setdefault(key, {})[value] = None
    full = "-".join("-".join([key, *values[key]]) for key in sorted(values)) or "seeds"
    name = re.sub(r"[^A-Za-z0-9._]+", "-", full)[:80].strip("-.")
    return name if name == full else f"{name}-{hashlib.sha256(full.encode()).hexdigest()[:8]}"


def make_jobs(
    configs: Sequence[DictConfig], job_overrides: JobOverrides, study: str, arguments: Sequence[str], checked: bool
) -> list[Job]:
    """Create a job per config, and check the configs if `checked`.

    Raises:
        UserError: a config is invalid, or two jobs would be the same run.
    """
    from alignbench.runs.settings import check, identify  # imported late: only sweeps need it

    for config in configs:
        config.study = study
        if checked:
            check(config)
    identities = [identify(config) for config in configs]
    for run_dir, count in Counter(identity.run_dir for identity in identities).items():
        if count > 1:
            raise UserError(
                f"{count} jobs of this sweep are the same run, {run_dir.name}: the swept keys change nothing"
            )
    short_labels = [f"{identity.method} s{identity.seed}" for identity in identities]
    program = (sys.executable, "-m", "alignbench")
    labels = (
        short_labels
        if len(set(short_labels)) == len(short_labels)
        else [identity.run_dir.name for identity in identities]
    )
    return [
        Job(identity, label, tuple(overrides), (*program, *arguments, *overrides, f"study='{study}'"))
        for identity, label, overrides in zip(identities, labels, job_overrides, strict=True)
    ]


def check_conditions(jobs: Sequence[Job], configs: Sequence[DictConfig]) -> list[str]:
    """Check that methods, including earlier runs of the study, differ only in `algo` and the keys of analysis.allow.

    Returns:
        Lines that describe the differences.

    Raises:
        NotComparable: another key differs.
    """
    folder = jobs[0].identity.run_dir.parent
    earlier = earlier_runs(folder)
    new = [(job.describe(), OmegaConf.to_container(config)) for job, config in zip(jobs, configs, strict=True)]
    planned = {entry["key"]: (entry, config) for entry, config in [*earlier, *new]}
    labels = label_methods([entry for entry, _ in planned.values()])
    runs = [(label, config) for label, (_, config) in zip(labels, planned.values(), strict=True)]
    different, keys = differences(runs, configs[0].analysis.allow)
    violations = [difference for difference in different if not difference.allowed]
    if violations:
        names = ",".join(difference.key for difference in violations)
        lines = "\n".join(f"  {difference}" for difference in violations[:MAX_DIFFERENCES])
        more = f"\n  and {len(violations) - MAX_DIFFERENCES} more" if len(violations) > MAX_DIFFERENCES else ""
        existing = f" {folder} already contains runs; start without them with another study=NAME." if earlier else ""
        raise NotComparable(
            f"the methods of this study would not run under the same conditions:\n{lines}{more}\nSet the same value "
            f"for all methods, or allow the differences with 'analysis.allow=[{names}]'.{existing} No job was started."
        )
    return [f"comparable: {len(different)} of {keys} keys differ, all of them allowed", *map(str, different)]


def check_judge(config: DictConfig) -> None:
    """Raise UserError if the LLM judge has no API key or is unavailable, before the study trains anything."""
    if "model" not in config.judge:
        return
    request = {
        "seeds": {},
        "paired": False,
        "judge": OmegaConf.to_container(config.judge),
        "prompts": [],
        "answer_tokens": 0,
    }
    problems = analysis_process.forecast(request)["problems"]
    if problems:
        raise UserError("\n".join([*problems, "No job was started; judge=none disables the judge."]))


def earlier_runs(folder: Path) -> list[tuple[dict[str, Any], Any]]:
    """Entries of study.json, each with its config, for the planned runs that have saved a config."""
    file = folder / "study.json"
    planned = json.loads(file.read_text())["planned"] if file.exists() else []
    files = [(entry, folder / entry["run_dir"] / "config.yaml") for entry in planned]
    return [(entry, OmegaConf.to_container(OmegaConf.load(path))) for entry, path in files if path.exists()]


def write_study(jobs: Sequence[Job]) -> None:
    """Add the jobs to the planned runs in study.json, from which the analysis knows which runs are missing."""
    file = make_folder(jobs[0].identity.run_dir.parent) / "study.json"
    with FileLock(file.with_suffix(".lock")):  # two sweeps of one study may start at the same time
        earlier = json.loads(file.read_text())["planned"] if file.exists() else []
        planned = {entry["key"]: entry for entry in [*earlier, *(job.describe() for job in jobs)]}
        study = {"study": jobs[0].identity.study, "planned": list(planned.values()), "command": sys.argv}
        write_atomically(file, json.dumps(study, indent=2) + "\n")
