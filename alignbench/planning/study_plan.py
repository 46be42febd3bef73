"""Plan a study without training: what its runs share, what each method adds, and the total cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alignbench.planning.readiness import check_disk_space
from alignbench.planning.run_plan import RunPlan, forecast, raise_problems
from alignbench.planning.text import (
    Sections,
    format_count,
    format_duration,
    format_gib,
    format_judge_costs,
    format_sections,
    format_sizes,
)
from alignbench.runs.settings import identify
from alignbench.stages.progress import Display
from alignbench.store.run_status import is_finished

SHARED = ("the SFT model", "the reward model", "sft", "reward model")
"""Disk and time entries that are counted once for all runs."""


@dataclass(frozen=True)
class StudyPlan:
    """The configs of a study's runs by method label: the method, with settings where needed to distinguish labels."""

    runs: Mapping[str, Sequence[dict[str, Any]]]
    n_jobs: int

    @cached_property
    def plans(self) -> dict[str, RunPlan]:
        """The plan of the first run of each method; the others differ only in the seed."""
        return {method: RunPlan(configs[0]) for method, configs in self.runs.items()}

    @cached_property
    def remaining(self) -> dict[str, int]:
        """Number of unfinished runs per method."""
        identities = {method: [identify(config) for config in configs] for method, configs in self.runs.items()}
        return {
            method: sum(not is_finished(run.run_dir, run.key) for run in runs) for method, runs in identities.items()
        }

    def show(self, conditions: Sequence[str]) -> None:
        """Print the plan. Raises UserError that lists every problem."""
        sections = {method: {"run": [plan.name], **plan.sections()} for method, plan in self.plans.items()}
        first, *others = sections.values()
        shared = {name: lines for name, lines in first.items() if all(lines == other.get(name) for other in others)}
        problems = [problem for plan in self.plans.values() for problem in plan.readiness.problems]
        seeds = {method: [config["seed"] for config in configs] for method, configs in self.runs.items()}
        expected = forecast(list(self.plans.values()), seeds, problems)
        complete = all("disk" in lines for lines in sections.values())
        total = (self._total(problems) if complete else {}) | format_judge_costs(expected) | format_effects(expected)
        methods = [
            line
            for method, lines in sections.items()
            for line in [
                f"{method}, seeds {' '.join(map(str, seeds[method]))}",
                *format_sections({name: text for name, text in lines.items() if name not in shared}),
            ]
        ]
        study = next(iter(self.plans.values())).identity.study
        title = f"plan of study {study}: {format_count(sum(map(len, seeds.values())), 'run')}; nothing is trained"
        Display().print(
            "\n".join(
                [
                    title,
                    *format_sections({"conditions": list(conditions)} | shared),
                    *methods,
                    "total",
                    *format_sections(total),
                ]
            )
        )
        raise_problems(problems)

    def _total(self, problems: list[str]) -> Sections:
        """Total cost of all unfinished runs; shared stages and artifacts are counted once."""
        done = sum(map(len, self.runs.values())) - sum(self.remaining.values())
        lines = [f"{done} already finished"] if done else []
        sizes = self._sum({method: plan.expected.disk() for method, plan in self.plans.items()})
        first = next(iter(self.plans.values()))
        first.readiness.attempt(
            lambda: check_disk_space(Path(first.job.output_dir), int(sum(sizes.values()))), breaks="disk_space"
        )
        problems += first.readiness.problems
        sections = {"runs": lines, "disk": [f"{format_gib(sum(sizes.values()))} GiB: {format_sizes(sizes)}"]}
        if first.probe is not None:
            hours = self._sum({method: plan.hours() for method, plan in self.plans.items()})
            order = f"; {self.n_jobs} parallel runs share the machine" if self.n_jobs > 1 else ", one run after another"
            sections["time"] = [
                f"about {format_duration(sum(hours.values()))}{order}: "
                + ", ".join(f"{stage} {format_duration(each)}" for stage, each in hours.items())
            ]
        return sections

    def _sum(self, per_run: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """The sum over all unfinished runs, from the values of one run per method."""
        total: dict[str, Any] = {}
        for method, values in per_run.items():
            for name, value in values.items():
                total[name] = value if name in SHARED else total.get(name, 0) + value * self.remaining[method]
        return total


def format_effects(forecast: Mapping[str, Any]) -> Sections:
    """The smallest detectable effect of each comparison of two methods, given their numbers of seeds."""
    lines = []
    for effect in forecast["effects"]:
        (left, right), (left_seeds, right_seeds) = effect["methods"], effect["seeds"]
        smallest = effect["smallest"]
        pair = f"{left} ({format_count(left_seeds, 'seed')}) and {right} ({format_count(right_seeds, 'seed')})"
        lines.append(
            f"{pair}: d >= {smallest:.3g} is detectable with 80 % power (in standard deviations over seeds)"
            if smallest
            else f"{pair}: no effect is detectable; use at least two seeds per method"
        )
    return {"effect": lines} if lines else {}
