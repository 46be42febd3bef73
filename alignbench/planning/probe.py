"""Run two real steps of each stage in a temporary folder to measure their time, peak memory and initial quality.

`python -m alignbench.planning.probe FOLDER` reads probe.yaml in FOLDER, which `run_plan` writes, and writes probe.json.
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

REQUEST, RESULT = "probe.yaml", "probe.json"


class ProbeData(RunData):
    """The full training split, and one batch of each evaluation split."""

    @cached_property
    def prompts(self) -> dict[str, Sequence[Row]]:
        """Prompt rows by split."""
        limit = min(self.job.hardware.eval_batch_size, self.job.rl.rollouts_per_step)
        return {split: rows if split == "train" else rows[:limit] for split, rows in RunData(self.job).prompts.items()}

    @cached_property
    def comparisons(self) -> dict[str, Sequence[Row]]:
        """Preference pairs by split."""
        limit = 4 * self.job.hardware.microbatch_rows
        comparisons = RunData(self.job).comparisons
        return {split: rows if split == "train" else rows[:limit] for split, rows in comparisons.items()}


class Probe(Pipeline):
    """The pipeline of a run on the probe data."""

    @cached_property
    def run_data(self) -> RunData:
        """Data of the probe."""
        return ProbeData(self.job)


def main(folder: Path) -> None:
    """Run the stages of the probe in `folder` and write the measurements to probe.json."""
    request = yaml.safe_load((folder / REQUEST).read_text(encoding="utf-8"))
    job, existing = build(request["config"]), ArtifactStore(Path(request["artifacts"]))
    job.hardware.prepare()
    probe, display = Probe(job, request["config"], identify(request["config"])), Display()
    start = _load_artifact(existing, request["ready"].get("sft")) or probe.shared.sft(display)
    preferences = _load_artifact(existing, request["ready"].get("reward model")) or probe.shared.reward_model(
        start, display
    )
    reward_model = probe.shared.load_reward_model(preferences)
    policy = probe.load_policy(start, reward_model)
    evaluator = probe.build_evaluator(policy, probe.shared.scorer(reward_model, policy.text))
    run_dir = folder / "run"
    with probe.shared.tracker(run_dir, "rl", None) as tracker:
        probe.train(evaluator, probe.prompts(), Checkpoints(run_dir), None, tracker, display, {})
    start_time = perf_counter()
    probe.validate(evaluator)
    eval_seconds = perf_counter() - start_time
    steps = _read_metrics(run_dir)
    result = {
        "seconds": {
            "rl": _step_seconds(steps),
            "answer": eval_seconds / (2 * len(probe.run_data.prompts["validation"])),
        },
        "start": {name: value for name, value in steps[0].items() if name.startswith("eval/")},
        "steps": steps[1:],
        "peak": steps[-1][metric_names.PEAK_MEMORY],
    }
    for stage, artifact in (("sft", start), ("reward model", preferences)):
        if artifact is not None and stage not in request["ready"]:
            result["seconds"][stage] = _step_seconds(_read_metrics(folder / "artifacts" / f"{artifact.key}.tracking"))
    (folder / RESULT).write_text(json.dumps(result), encoding="utf-8")


def _load_artifact(store: ArtifactStore, name: str | None) -> Artifact | None:
    return store.get(name) if name else None


def _read_metrics(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["metrics"] for line in lines]


def _step_seconds(steps: Sequence[dict[str, Any]]) -> float:
    """Seconds of the second step; the first includes the warm-up."""
    elapsed: list[float] = [metrics[metric_names.SECONDS] for metrics in steps if metric_names.SECONDS in metrics]
    return elapsed[-1] - elapsed[-2]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
