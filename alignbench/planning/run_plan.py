"""What a run or a study will do, take and find, and whether it can begin: told before anything is trained."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from alignbench.core.errors import UserError
from alignbench.core.judge_settings import Judge
from alignbench.planning.expected import Expected, Need
from alignbench.planning.readiness import Readiness, require_room
from alignbench.planning.text import Told, duration, gib, judges, listed, page, typed
from alignbench.runs import analysis_process
from alignbench.runs.compose import chosen_options
from alignbench.runs.run_data import RunData
from alignbench.runs.settings import Identity, build_valid_sections, flatten, identify, resolve
from alignbench.runs.shared_models import SharedModels
from alignbench.stages.progress import Display

HOUR = 3600.0
STANDS_ON = ("shared", "rows", "model", "data", "algo", "reward", "reward_model", "hardware", "sft", "rl", "eval")
"""What nothing can be told without."""


@dataclass(frozen=True)
class RunPlan:
    """The plan of one run."""

    config: dict[str, Any]

    def __post_init__(self) -> None:
        """Ask for everything that could be missing."""
        self.ready.check(self.job, self.expected.run_data, self.expected.shared)

    @cached_property
    def ready(self) -> Readiness:
        """What is missing, as far as it was asked for."""
        return Readiness(self._built[1])

    @cached_property
    def identity(self) -> Identity:
        """Who the run is."""
        return identify(self.config)

    @cached_property
    def expected(self) -> Expected:
        """What it will take."""
        run_data = RunData(self.job)
        return Expected(
            job=self.job, run_data=run_data, shared=SharedModels(self.job, self.config, self.identity, run_data)
        )

    @property
    def name(self) -> str:
        """What the run is called in its study."""
        return self.identity.run_dir.name

    @property
    def is_judged(self) -> bool:
        """Whether a judge is named, for the report of its study."""
        return isinstance(self.job.judge, Judge)

    @property
    def job(self) -> Any:
        """Its parts; None in place of those that could not be built."""
        return self._built[0]

    @cached_property
    def _built(self) -> Any:
        return build_valid_sections(self.config)

    def told(self) -> Told:
        """All that could be found out."""
        sections = {
            "data": self._data,
            "model": self._model,
            "phases": self._phases,
            "memory": self._memory,
            "disk": self._disk,
            "time": self._time,
            "start": self._start,
            "folder": self._folder,
        }
        lines = {name: self.ready.attempt(tell, *STANDS_ON, breaks=name) for name, tell in sections.items()}
        return {name: found for name, found in lines.items() if found}

    # --- its sections ---------------------------------------------------------------------------------------------

    def _data(self) -> list[str]:
        rows = self.expected.run_data.prompts
        return [
            f"{self.job.names.data}: "
            + ", ".join(f"{len(rows[split])} {split}" for split in rows)
            + "; no row of one is in another",
            *(f"{what}: {count}" for what, count in self.expected.run_data.notes().items()),
        ]

    def _model(self) -> list[str]:
        job, device = self.job, self.job.hardware.resolve_device()
        policy = self.expected.policy
        learned = f"{policy.trained / 1e6:.3g} M of them trained" if policy.adapter else "all trained"
        count = sum(p.numel() for p in policy.inner.parameters())
        dtype = str(job.model.resolve_dtype(device)).removeprefix("torch.")
        packed = " under 4 bits" if job.model.quantization == "nf4" else ""
        return [
            f"{job.names.model} from {job.model.source}: {count / 1e6:.4g} M parameters, {learned}, "
            f"{dtype}{packed} on {device}"
        ]

    def _phases(self) -> list[str]:
        job, groups = self.job, self.job.rl.prompts_per_step(self.job.algo)
        states = {
            phase: f"{name}, " + ("{} steps to train" if phase in self.expected.missing else "ready")
            for phase, name in self.expected.artifacts.items()
        }
        steps = {"sft": job.sft.steps, "reward model": job.reward_model.steps}
        lines = [f"{phase}: {state.format(steps[phase])}" for phase, state in states.items()]
        lines += [
            f"rl: {job.rl.steps} steps of {groups} prompts x {job.algo.group_size} answers, "
            f"{job.rl.steps * job.rl.rollouts_per_step} answers in all; reward {job.names.reward}",
            f"{'':<13}{'prompts':>11}{'completions':>13}{'tokens':>15}{'optimizer steps':>17}",
        ]
        for phase in self.expected.phases():
            most = "" if phase.name in ("sft", "reward model") else "<= "
            lines.append(
                f"{phase.name:<13}{phase.prompts:>11,}{phase.completions:>13,}"
                f"{most + format(phase.tokens, ','):>15}{phase.optimizer_steps:>17,}"
            )
        return lines

    @cached_property
    def needs(self) -> list[Need]:
        """The memory of each phase."""
        return self.expected.memory()

    def _memory(self) -> list[str]:
        worst, there = max(self.needs, key=lambda need: need.peak), memory_of(self.job.hardware.resolve_device())
        told = f"at most about {gib(worst.peak)} GiB, in {worst.phase} while {worst.hardest}; there are {gib(there)}"
        fits = (
            []
            if worst.peak <= there
            else [
                "WILL NOT FIT: set hardware.activation_checkpointing=true, or lower hardware.tokens_per_microbatch, "
                "hardware.rollouts_at_once or rl.max_new_tokens"
            ]
        )
        return [told, *fits, *(line for need in self.needs for line in parts(need))]

    def _disk(self) -> list[str]:
        sizes = self.expected.disk()
        return [f"{gib(sum(sizes.values()))} GiB: " + ", ".join(f"{what} {gib(size)}" for what, size in sizes.items())]

    def _time(self) -> list[str]:
        if self.probe is None:
            return ["unknown: plan.probe=true times two steps of each phase"]
        hours = self.hours()
        parts = ", ".join(f"{phase} {duration(hour)}" for phase, hour in hours.items())
        return [
            f"about {duration(sum(hours.values()))}: {parts}",
            f"two steps were tried: {self.probe['seconds']['rl']:.3g} s for one of rl, with answers of "
            f"{self._probed('rollout/response_length'):.4g} tokens; at most "
            f"{gib(self.probe['peak'])} GiB were used",
        ]

    def _start(self) -> list[str]:
        if self.probe is None:
            return ["how good it is before rl is unknown: plan.probe=true measures it"]
        whose = "of the SFT model" if "sft" in self.expected.artifacts else "of the model as it is"
        if "sft" in self.expected.missing:
            whose = "after two steps of sft, which is not what rl will start from"
        marks = {name.removeprefix("eval/"): value for name, value in self.probe["start"].items()}
        mark = next(name for name in ("gold", "accuracy", "avg_reward") if name in marks)
        lines = [f"{mark.replace('avg_', '')} {marks[mark]:.3g} {whose}"]
        if self.job.algo.group_size > 1:
            lines.append(
                f"groups without signal, all answers scored alike: {self._probed('group_stats/no_signal_fraction'):.0%}"
            )
        return lines

    def _folder(self) -> list[str]:
        return [str(self.identity.run_dir)]

    # --- its probe ------------------------------------------------------------------------------------------------

    @cached_property
    def probe(self) -> dict[str, Any] | None:
        """What two real steps showed; None when they were not asked for."""
        if not self.job.plan.probe:
            return None
        with TemporaryDirectory() as folder:
            return self._run_probe(Path(folder))

    def hours(self) -> dict[str, float]:
        """Hours of each phase that has to be done."""
        assert self.probe is not None
        seconds, job = self.probe["seconds"], self.job
        steps = {"sft": job.sft.steps, "reward model": job.reward_model.steps}
        spent = {phase: steps[phase] * seconds[phase] for phase in self.expected.missing}
        answers = self.expected.phases()[-1].completions
        spent |= {"rl": job.rl.steps * seconds["rl"], "evaluation": answers * seconds["answer"]}
        return {phase: time / HOUR for phase, time in spent.items()}

    def _run_probe(self, folder: Path) -> dict[str, Any]:
        artifacts = self.expected.artifacts
        question = {
            "config": shortened(self.config, folder, self.expected.missing),
            "artifacts": str(self.expected.shared.store.root.absolute()),
            "ready": {phase: name for phase, name in artifacts.items() if phase not in self.expected.missing},
        }
        (folder / "probe.yaml").write_text(yaml.safe_dump(question), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "alignbench.planning.probe", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it said nothing")
            raise UserError(f"the probe of {self.identity.run_dir.name} failed: {last}")
        found: dict[str, Any] = json.loads((folder / "probe.json").read_text(encoding="utf-8"))
        return found

    def _probed(self, name: str) -> float:
        assert self.probe is not None
        found: list[float] = [step[name] for step in self.probe["steps"]]
        return sum(found) / len(found)


def show(config: dict[str, Any]) -> None:
    """Tell the plan of one run. Raises UserError that lists everything that is missing."""
    plan = RunPlan(config)
    told = {"settings": settings(config), **plan.told()}
    if "disk" in told:
        plan.ready.attempt(
            lambda: require_room(Path(plan.job.output_dir), sum(plan.expected.disk().values())), breaks="room"
        )
    ahead = forecast([plan], {plan.name: [config["seed"]]}, plan.ready.problems) if plan.is_judged else {}
    title = f"plan of {plan.name} in study {config['study'] or 'single'}; nothing is trained"
    Display().print("\n".join([title, *page(told | judges(ahead))]))
    refuse(plan.ready.problems)


def refuse(problems: Sequence[str]) -> None:
    """Raise UserError that lists all of these, where there are any."""
    found = list(dict.fromkeys(problems))
    if found:
        count = f"{len(found)} things are" if len(found) > 1 else "one thing is"
        raise UserError(
            f"{count} missing or wrong:\n" + "\n".join("- " + problem.replace("\n", "\n  ") for problem in found)
        )


def settings(config: Mapping[str, Any]) -> list[str]:
    """The options that were chosen, and the keys whose values are not those options' own; none outside of Hydra."""
    found = chosen_options()
    if found is None:
        return []
    chosen, usual = found[0], flatten(resolve(found[1]))
    changed = [
        f"{key}={typed(value)} (usually {typed(usual.get(key))})"
        for key, value in flatten(config).items()
        if value != usual.get(key) and not key.startswith(("plan", "output_dir", "names"))
    ]
    return [" ".join(chosen), *(changed or ["all as usual"])]


def forecast(plans: Sequence[RunPlan], seeds: Mapping[str, Sequence[int]], problems: list[str]) -> dict[str, Any]:
    """What the analysis says of a study before it is run; what it lacks joins the problems."""
    first = plans[0]
    rows = first.ready.attempt(lambda: first.expected.run_data.prompts["test"], "rows", "model", "data", breaks="data")
    ahead = analysis_process.forecast(
        {
            "seeds": dict(seeds),
            "paired": first.config["analysis"]["pairing"] == "seed",
            "judge": first.config["judge"],
            "prompts": [
                {"id": str(row["id"]), "prompt": row["prompt"], "reference": str(row.get("reference") or "")}
                for row in rows or ()
            ],
            "answer_tokens": first.config["eval"]["max_new_tokens"] or first.config["rl"]["max_new_tokens"],
        }
    )
    problems += ahead["problems"]
    return ahead


def parts(need: Need) -> list[str]:
    """A phase's memory, part by part."""
    moments = (f"{'while ' + name}: {listed(found)}" for name, found in need.moments.items())
    return [f"{need.phase}: {gib(need.peak)} = {listed(need.standing)}", *(f"    {moment}" for moment in moments)]


def memory_of(device: str) -> int:
    """Bytes that the device has."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def shortened(config: Mapping[str, Any], folder: Path, missing: Sequence[str]) -> dict[str, Any]:
    """The same run of two steps in that folder, which tells MLflow nothing."""
    short = {**config, "output_dir": str(folder), "plan": {"enabled": False, "probe": False}}
    short["tracking"] = {**config["tracking"], "enabled": False}
    short["rl"] = {**config["rl"], "steps": 2, "checkpoint_every": 0}
    short["eval"] = {**config["eval"], "every": 2, "samples": 0}
    if "sft" in missing:
        short["sft"] = {**config["sft"], "steps": 2}
    if "reward model" in missing:
        short["reward_model"] = {**config["reward_model"], "steps": 2, "gate": "off"}
    return short
