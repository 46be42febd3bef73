"""Plan one run without training: data, model, stages, memory, disk space, time, and everything that is missing."""

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
from alignbench.planning.expected import Expected, StageMemory
from alignbench.planning.readiness import Readiness, check_disk_space
from alignbench.planning.text import (
    Sections,
    format_count,
    format_duration,
    format_gib,
    format_judge_costs,
    format_sections,
    format_sizes,
    format_value,
)
from alignbench.runs import analysis_process
from alignbench.runs.compose import chosen_options
from alignbench.runs.run_data import RunData
from alignbench.runs.settings import Identity, build_valid_sections, flatten, identify, resolve
from alignbench.runs.shared_models import SharedModels
from alignbench.stages.progress import Display

HOUR = 3600.0
REQUIRED_SECTIONS = (
    "shared",
    "rows",
    "model",
    "data",
    "algo",
    "reward",
    "reward_model",
    "hardware",
    "sft",
    "rl",
    "eval",
)
"""Parts of a run that every section of the plan needs."""


@dataclass(frozen=True)
class RunPlan:
    """The plan of one run."""

    config: dict[str, Any]

    def __post_init__(self) -> None:
        """Check all requirements; problems are collected in `readiness`."""
        self.readiness.check(self.job, self.expected.run_data, self.expected.shared)

    @cached_property
    def readiness(self) -> Readiness:
        """The checks that were made, with the problems they found."""
        return Readiness(self._built[1])

    @cached_property
    def identity(self) -> Identity:
        """Study, method, model, seed and folder of the run."""
        return identify(self.config)

    @cached_property
    def expected(self) -> Expected:
        """Expected cost of the run."""
        run_data = RunData(self.job)
        return Expected(
            job=self.job, run_data=run_data, shared=SharedModels(self.job, self.config, self.identity, run_data)
        )

    @property
    def name(self) -> str:
        """Name of the run's folder in its study."""
        return self.identity.run_dir.name

    @property
    def is_judged(self) -> bool:
        """Whether an LLM judge is configured for the report of the study."""
        return isinstance(self.job.judge, Judge)

    @property
    def job(self) -> Any:
        """Settings of the run; sections that could not be built are None."""
        return self._built[0]

    @cached_property
    def _built(self) -> Any:
        return build_valid_sections(self.config)

    def sections(self) -> Sections:
        """The sections of the plan that could be computed."""
        sections = {
            "data": self._data,
            "model": self._model,
            "stages": self._stages,
            "memory": self._memory,
            "disk": self._disk,
            "time": self._time,
            "start": self._start,
            "folder": self._folder,
        }
        lines = {
            name: self.readiness.attempt(section, *REQUIRED_SECTIONS, breaks=name) for name, section in sections.items()
        }
        return {name: text for name, text in lines.items() if text}

    # --- sections -------------------------------------------------------------------------------------------------

    def _data(self) -> list[str]:
        rows = self.expected.run_data.prompts
        return [
            f"{self.job.names.data}: "
            + ", ".join(f"{len(rows[split])} {split}" for split in rows)
            + "; splits do not overlap",
            *(f"{note}: {count}" for note, count in self.expected.run_data.notes().items()),
        ]

    def _model(self) -> list[str]:
        job, device = self.job, self.job.hardware.resolve_device()
        policy = self.expected.policy
        trainable = f"{policy.trained / 1e6:.3g} M trainable" if policy.adapter else "all trainable"
        count = sum(p.numel() for p in policy.inner.parameters())
        dtype = str(job.model.resolve_dtype(device)).removeprefix("torch.")
        quantization = " with 4-bit weights" if job.model.quantization == "nf4" else ""
        return [
            f"{job.names.model} from {job.model.source}: {count / 1e6:.4g} M parameters, {trainable}, "
            f"{dtype}{quantization} on {device}"
        ]

    def _stages(self) -> list[str]:
        job, prompts = self.job, self.job.rl.prompts_per_step(self.job.algo)
        states = {
            stage: f"{key}, " + ("{} steps to train" if stage in self.expected.missing else "exists")
            for stage, key in self.expected.artifacts.items()
        }
        steps = {"sft": job.sft.steps, "reward model": job.reward_model.steps}
        lines = [f"{stage}: {state.format(steps[stage])}" for stage, state in states.items()]
        lines += [
            f"rl: {job.rl.steps} steps of {prompts} prompts x {job.algo.group_size} responses, "
            f"{job.rl.steps * job.rl.rollouts_per_step} responses in total; reward {job.names.reward}",
            f"{'':<13}{'prompts':>11}{'completions':>13}{'tokens':>15}{'optimizer steps':>17}",
        ]
        for stage in self.expected.stages():
            bound = "" if stage.name in ("sft", "reward model") else "<= "
            lines.append(
                f"{stage.name:<13}{stage.prompts:>11,}{stage.completions:>13,}"
                f"{bound + format(stage.tokens, ','):>15}{stage.optimizer_steps:>17,}"
            )
        return lines

    @cached_property
    def stage_memory(self) -> list[StageMemory]:
        """Memory of each stage."""
        return self.expected.memory()

    def _memory(self) -> list[str]:
        largest = max(self.stage_memory, key=lambda stage: stage.peak)
        available = device_memory(self.job.hardware.resolve_device())
        summary = (
            f"at most about {format_gib(largest.peak)} GiB ({largest.stage}, {largest.peak_activity}); "
            f"{format_gib(available)} GiB available"
        )
        warning = (
            []
            if largest.peak <= available
            else [
                "DOES NOT FIT: set hardware.activation_checkpointing=true, or lower hardware.tokens_per_microbatch, "
                "hardware.rollouts_at_once or rl.max_new_tokens"
            ]
        )
        return [summary, *warning, *(line for stage in self.stage_memory for line in format_memory(stage))]

    def _disk(self) -> list[str]:
        sizes = self.expected.disk()
        return [f"{format_gib(sum(sizes.values()))} GiB: {format_sizes(sizes)}"]

    def _time(self) -> list[str]:
        if self.probe is None:
            return ["unknown: plan.probe=true times two steps of each stage"]
        hours = self.hours()
        parts = ", ".join(f"{stage} {format_duration(each)}" for stage, each in hours.items())
        return [
            f"about {format_duration(sum(hours.values()))}: {parts}",
            f"measured: {self.probe['seconds']['rl']:.3g} s per RL step, mean response length "
            f"{self._probe_mean('rollout/response_length'):.4g} tokens, "
            f"peak memory {format_gib(self.probe['peak'])} GiB",
        ]

    def _start(self) -> list[str]:
        if self.probe is None:
            return ["the quality before RL is unknown: plan.probe=true measures it"]
        model = "of the SFT model" if "sft" in self.expected.artifacts else "of the initial model"
        if "sft" in self.expected.missing:
            model = "after two SFT steps; RL will start from the fully trained SFT model"
        metrics = {name.removeprefix("eval/"): value for name, value in self.probe["start"].items()}
        metric = next(name for name in ("gold", "accuracy", "avg_reward") if name in metrics)
        lines = [f"{metric.replace('avg_', '')} {metrics[metric]:.3g} {model}"]
        if self.job.algo.group_size > 1:
            lines.append(
                f"groups without signal (all rewards equal): {self._probe_mean('group_stats/no_signal_fraction'):.0%}"
            )
        return lines

    def _folder(self) -> list[str]:
        return [str(self.identity.run_dir)]

    # --- probe ----------------------------------------------------------------------------------------------------

    @cached_property
    def probe(self) -> dict[str, Any] | None:
        """Measurements of two real steps; None unless plan.probe=true."""
        if not self.job.plan.probe:
            return None
        with TemporaryDirectory() as folder:
            return self._run_probe(Path(folder))

    def hours(self) -> dict[str, float]:
        """Hours of each stage that will run."""
        assert self.probe is not None
        seconds, job = self.probe["seconds"], self.job
        steps = {"sft": job.sft.steps, "reward model": job.reward_model.steps}
        total = {stage: steps[stage] * seconds[stage] for stage in self.expected.missing}
        generations = self.expected.stages()[-1].completions
        total |= {"rl": job.rl.steps * seconds["rl"], "evaluation": generations * seconds["answer"]}
        return {stage: time / HOUR for stage, time in total.items()}

    def _run_probe(self, folder: Path) -> dict[str, Any]:
        artifacts = self.expected.artifacts
        request = {
            "config": shorten_config(self.config, folder, self.expected.missing),
            "artifacts": str(self.expected.shared.store.root.absolute()),
            "ready": {stage: key for stage, key in artifacts.items() if stage not in self.expected.missing},
        }
        (folder / "probe.yaml").write_text(yaml.safe_dump(request), encoding="utf-8")
        process = subprocess.run(
            [sys.executable, "-m", "alignbench.planning.probe", str(folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode:
            last = next((line for line in reversed(process.stderr.splitlines()) if line.strip()), "no output")
            raise UserError(f"the probe of {self.identity.run_dir.name} failed: {last}")
        measurements: dict[str, Any] = json.loads((folder / "probe.json").read_text(encoding="utf-8"))
        return measurements

    def _probe_mean(self, name: str) -> float:
        assert self.probe is not None
        values: list[float] = [step[name] for step in self.probe["steps"]]
        return sum(values) / len(values)


def show(config: dict[str, Any]) -> None:
    """Print the plan of one run. Raises UserError that lists every problem."""
    plan = RunPlan(config)
    sections = {"settings": describe_settings(config), **plan.sections()}
    if "disk" in sections:
        plan.readiness.attempt(
            lambda: check_disk_space(Path(plan.job.output_dir), sum(plan.expected.disk().values())), breaks="disk_space"
        )
    expected = forecast([plan], {plan.name: [config["seed"]]}, plan.readiness.problems) if plan.is_judged else {}
    title = f"plan of {plan.name} in study {config['study'] or 'single'}; nothing is trained"
    Display().print("\n".join([title, *format_sections(sections | format_judge_costs(expected))]))
    raise_problems(plan.readiness.problems)


def raise_problems(problems: Sequence[str]) -> None:
    """Raise UserError that lists the distinct problems, if there is at least one."""
    unique = list(dict.fromkeys(problems))
    if unique:
        lines = ["- " + problem.replace("\n", "\n  ") for problem in unique]
        raise UserError("\n".join([f"found {format_count(len(unique), 'problem')}:", *lines]))


def describe_settings(config: Mapping[str, Any]) -> list[str]:
    """The chosen config options, and the keys that differ from the defaults of these; empty outside Hydra."""
    options = chosen_options()
    if options is None:
        return []
    names, defaults = options[0], flatten(resolve(options[1]))
    changed = [
        f"{key}={format_value(value)} (default {format_value(defaults.get(key))})"
        for key, value in flatten(config).items()
        if value != defaults.get(key) and not key.startswith(("plan", "output_dir", "names"))
    ]
    return [" ".join(names), *(changed or ["all keys have their defaults"])]


def forecast(plans: Sequence[RunPlan], seeds: Mapping[str, Sequence[int]], problems: list[str]) -> dict[str, Any]:
    """Detectable effects and judge costs of a study, from the analysis; its problems are appended to `problems`."""
    first = plans[0]
    rows = first.readiness.attempt(
        lambda: first.expected.run_data.prompts["test"], "rows", "model", "data", breaks="data"
    )
    result = analysis_process.forecast(
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
    problems += result["problems"]
    return result


def format_memory(stage: StageMemory) -> list[str]:
    """The memory of a stage: its peak and persistent parts, then one line per activity."""
    activities = [f"    during {name}: {format_sizes(parts)}" for name, parts in stage.activities.items()]
    return [f"{stage.stage}: {format_gib(stage.peak)} = {format_sizes(stage.persistent)}", *activities]


def device_memory(device: str) -> int:
    """Total memory of the device in bytes."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_properties(0).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def shorten_config(config: Mapping[str, Any], folder: Path, missing: Sequence[str]) -> dict[str, Any]:
    """The same run with two steps per stage, in `folder` and without MLflow."""
    short = {**config, "output_dir": str(folder), "plan": {"enabled": False, "probe": False}}
    short["tracking"] = {**config["tracking"], "enabled": False}
    short["rl"] = {**config["rl"], "steps": 2, "checkpoint_every": 0}
    short["eval"] = {**config["eval"], "every": 2, "samples": 0}
    if "sft" in missing:
        short["sft"] = {**config["sft"], "steps": 2}
    if "reward model" in missing:
        short["reward_model"] = {**config["reward_model"], "steps": 2, "gate": "off"}
    return short
