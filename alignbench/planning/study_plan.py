"""The plan of a study: what all its runs share, what each method does alone, and what it takes together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from alignbench.planning.readiness import require_room
from alignbench.planning.run_plan import RunPlan, forecast, refuse
from alignbench.planning.text import Told, counted, duration, gib, judges, listed, page
from alignbench.runs.settings import identify
from alignbench.stages.progress import Display
from alignbench.store.run_status import is_finished

SHARED = ("the SFT model", "the reward model", "sft", "reward model")
"""What is made once for all runs."""


@dataclass(frozen=True)
class StudyPlan:
    """The runs of a study by what they are called in its report: method, and settings where these tell them apart."""

    runs: Mapping[str, Sequence[dict[str, Any]]]
    n_jobs: int

    @cached_property
    def plans(self) -> dict[str, RunPlan]:
        """Of each arm the plan of its first run; the others differ by their seed."""
        return {arm: RunPlan(configs[0]) for arm, configs in self.runs.items()}

    @cached_property
    def left(self) -> dict[str, int]:
        """How many runs of each arm are not finished."""
        who = {arm: [identify(config) for config in configs] for arm, configs in self.runs.items()}
        return {arm: sum(not is_finished(one.run_dir, one.key) for one in ones) for arm, ones in who.items()}

    def show(self, conditions: Sequence[str]) -> None:
        """Tell everything. Raises UserError that lists all that is missing."""
        told = {arm: {"run": [plan.name], **plan.told()} for arm, plan in self.plans.items()}
        first, *others = told.values()
        shared = {name: lines for name, lines in first.items() if all(lines == other.get(name) for other in others)}
        problems = [problem for plan in self.plans.values() for problem in plan.ready.problems]
        seeds = {arm: [config["seed"] for config in configs] for arm, configs in self.runs.items()}
        ahead = forecast(list(self.plans.values()), seeds, problems)
        complete = all("disk" in lines for lines in told.values())
        together = (self._together(problems) if complete else {}) | judges(ahead) | effects(ahead)
        arms = [
            line
            for arm, lines in told.items()
            for line in [
                f"{arm}, seeds {' '.join(map(str, seeds[arm]))}",
                *page({name: found for name, found in lines.items() if name not in shared}),
            ]
        ]
        study = next(iter(self.plans.values())).identity.study
        title = f"plan of study {study}: {counted(sum(map(len, seeds.values())), 'run')}; nothing is trained"
        Display().print(
            "\n".join([title, *page({"conditions": list(conditions)} | shared), *arms, "together", *page(together)])
        )
        refuse(problems)

    def _together(self, problems: list[str]) -> Told:
        """What all runs that are left take, what they share counted once."""
        done = sum(map(len, self.runs.values())) - sum(self.left.values())
        lines = [f"{done} are finished already"] if done else []
        sizes = self._summed({arm: plan.expected.disk() for arm, plan in self.plans.items()})
        first = next(iter(self.plans.values()))
        first.ready.attempt(lambda: require_room(Path(first.job.output_dir), int(sum(sizes.values()))), breaks="room")
        problems += first.ready.problems
        told = {"runs": lines, "disk": [f"{gib(sum(sizes.values()))} GiB: {listed(sizes)}"]}
        if first.probe is not None:
            hours = self._summed({arm: plan.hours() for arm, plan in self.plans.items()})
            side = f"; {self.n_jobs} runs side by side share the machine" if self.n_jobs > 1 else ", one after another"
            told["time"] = [
                f"about {duration(sum(hours.values()))}{side}: "
                + ", ".join(f"{phase} {duration(each)}" for phase, each in hours.items())
            ]
        return told

    def _summed(self, each: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """The same for all runs that are left."""
        total: dict[str, Any] = {}
        for arm, found in each.items():
            for what, size in found.items():
                total[what] = size if what in SHARED else total.get(what, 0) + size * self.left[arm]
        return total


def effects(ahead: Mapping[str, Any]) -> Told:
    """The smallest effect that the seeds of each two methods can find."""
    lines = []
    for found in ahead["effects"]:
        (one, other), (first, second), smallest = found["methods"], found["seeds"], found["smallest"]
        between = f"{one} ({counted(first, 'seed')}) and {other} ({counted(second, 'seed')})"
        lines.append(
            f"{between}: with 80 % power d >= {smallest:.3g}, in standard deviations over seeds"
            if smallest
            else f"{between}: nothing can be found, give each method two seeds or more"
        )
    return {"effect": lines} if lines else {}
