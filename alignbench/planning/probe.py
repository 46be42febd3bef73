"""Two real steps of each phase of a run, in a folder that is given up afterwards: how long they take, how it begins.

`python -m alignbench.planning.probe FOLDER` reads probe.yaml there, as `run_plan` writes it, and writes probe.json.
"""

import json
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import yaml

from alignbench.core import metric_names
from alignbench.core.batches import Row
from alignbench.runs.pipeline import Pipeline
from alignbench.runs.run_data import RunData
from alignbench.runs.settings import build, identify
from alignbench.stages.progress import Display
from alignbench.store.artifacts import Artifact, ArtifactStore
from alignbench.store.checkpoints import Checkpoints

QUESTION, ANSWER = "probe.yaml", "probe.json"


class Sample(RunData):
    """All there is to train on, and one batch of what is measured."""

    @cached_property
    def prompts(self) -> dict[str, Sequence[Row]]:
        """The rows to answer, of each split."""
        most = min(self.job.hardware.eval_batch_size, self.job.rl.rollouts_per_step)
        return {split: rows if split == "train" else rows[:most] for split, rows in RunData(self.job).prompts.items()}

    @cached_property
    def comparisons(self) -> dict[str, Sequence[Row]]:
        """The pairs to prefer by, of each split."""
        most = 4 * self.job.hardware.microbatch_rows
        found = RunData(self.job).comparisons
        return {split: rows if split == "train" else rows[:most] for split, rows in found.items()}


class Probe(Pipeline):
    """A run as it will be, on that sample."""

    @cached_property
    def run_data(self) -> RunData:
        """What it reads."""
        return Sample(self.job)


def main(folder: Path) -> None:
    """Run the phases in that folder and write down what they took."""
    asked = yaml.safe_load((folder / QUESTION).read_text(encoding="utf-8"))
    job, ready = build(asked["config"]), ArtifactStore(Path(asked["artifacts"]))
    job.hardware.prepare()
    probe, display = Probe(job, asked["config"], identify(asked["config"])), Display()
    start = _have(ready, asked["ready"].get("sft")) or probe.shared.sft(display)
    preferences = _have(ready, asked["ready"].get("reward model")) or probe.shared.reward_model(start, display)
    reward_model = probe.shared.load_reward_model(preferences)
    policy = probe.load_policy(start, reward_model)
    evaluator = probe.build_evaluator(policy, probe.shared.scorer(reward_model, policy.text))
    home = folder / "run"
    with probe.shared.tracker(home, "rl", None) as tracker:
        probe.train(evaluator, probe.prompts(), Checkpoints(home), None, tracker, display, {})
    began = perf_counter()
    probe.validate(evaluator)
    measured = perf_counter() - began
    steps = _records(home)
    told = {
        "seconds": {"rl": _pace(steps), "answer": measured / (2 * len(probe.run_data.prompts["validation"]))},
        "start": {name: value for name, value in steps[0].items() if name.startswith("eval/")},
        "steps": steps[1:],
        "peak": steps[-1][metric_names.PEAK_MEMORY],
    }
    for phase, made in (("sft", start), ("reward model", preferences)):
        if made is not None and phase not in asked["ready"]:
            told["seconds"][phase] = _pace(_records(folder / "artifacts" / f"{made.key}.tracking"))
    (folder / ANSWER).write_text(json.dumps(told), encoding="utf-8")


def _have(ready: ArtifactStore, name: str | None) -> Artifact | None:
    return ready.get(name) if name else None


def _records(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["metrics"] for line in lines]


def _pace(steps: Sequence[dict[str, Any]]) -> float:
    """Seconds of the second step: the first one also warms up."""
    spent: list[float] = [metrics[metric_names.SECONDS] for metrics in steps if metric_names.SECONDS in metrics]
    return spent[-1] - spent[-2]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
