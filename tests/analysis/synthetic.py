"""A factory of synthetic studies: real folders and a real MLflow store, with numbers made from a formula."""

import hashlib
import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
SEEDS = (42, 123, 777, 1001, 2024)
STEPS = 20
PPO, GRPO = (0.624, 0.641, 0.610), (0.645, 0.615, 0.627)
"""Accuracies whose statistics are known by hand: +0.4 points, g 0.21, d 0.26, 6 of 9 pairings."""


@dataclass
class Fake:
    """One run to write; `break_` may change any part before it is written."""

    method: str
    seed: int
    accuracy: float
    status: str = "finished"
    reason: str | None = None
    model: str = "tiny"
    tracked: bool = True
    planned: bool = True
    on_disk: bool = True
    key: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    more: dict[int, dict[str, float]] = field(default_factory=dict)
    """Metrics by step, written beside the others."""
    drop: tuple[str, ...] = ()
    """Metrics with one of these words in their name are not written."""
    row: Callable[[int], dict[str, Any]] = lambda index: {}
    """What an answer has beside, or instead of, the usual."""
    response: Callable[[int], str] = lambda index: f"38 * {index} = {38 * index}"

    def __post_init__(self) -> None:
        self.key = self.key or hashlib.sha256(f"{self.method}-{self.seed}".encode()).hexdigest()

    @property
    def name(self) -> str:
        return f"{self.method}-{self.model}-s{self.seed}-{self.key[:8]}"

    def rng(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, len(self.method), *name.encode(), *self.method.encode()])


def curves(fake: Fake) -> dict[int, dict[str, float]]:
    """Metrics by step: a saturating climb to the final accuracy, with noise of the run's own."""
    noise = fake.rng("noise").normal(0, 0.006, (STEPS + 1, 4))
    gain, steps = fake.accuracy - 0.418, {}
    slow = 1.25 if fake.method == "ppo" else 0.82
    last = STEPS if fake.status == "finished" else 12
    for step in range(last + 1):
        rise = 1 - math.exp(-4 * step / STEPS)
        row = {
            "eval/accuracy": 0.418 + gain * rise + (noise[step, 0] if step else 0),
            "eval/kl": 5.0 / slow * step / STEPS * (1 + noise[step, 1] * 4),
            "eval/avg_response_length": 46 + 18 / slow * step / STEPS + 60 * noise[step, 2],
            "eval/avg_reward": 0.46 + gain * rise + noise[step, 3],
        }
        if step:
            row |= {
                "rewards/mean": 0.45 + gain * rise + noise[step, 2],
                "budget/tokens": 410_000.0 * step,
                "rollout/kl_sequence": 5.0 / slow * step / STEPS,
                "cost/seconds": 26.0 * slow * step,
            }
        steps[step] = row
    if fake.status == "finished":
        jitter = fake.rng("final").normal(0, 1, 4)
        steps[STEPS] |= {
            "final/accuracy": fake.accuracy,
            "final/start_accuracy": 0.418,
            "final/avg_reward": fake.accuracy + 0.07,
            "final/avg_response_length": 46 + 18 / slow + jitter[0],
            "final/kl": 5.0 / slow + 0.15 * jitter[1],
            "final/truncated_fraction": abs(0.012 + 0.003 * jitter[2]),
            "final/pass_at_4": 0.76 + 0.01 * jitter[3],
        }
    for step, row in fake.more.items():
        steps.setdefault(step, {}).update(row)
    return {step: {n: v for n, v in row.items() if not any(w in n for w in fake.drop)} for step, row in steps.items()}


def config_of(fake: Fake) -> dict[str, Any]:
    algo = {"ppo": {"lr": 1e-5, "gae_lambda": 0.95, "group_size": 1}}.get(fake.method, {"lr": 1e-5, "group_size": 8})
    return {
        "study": "s",
        "seed": fake.seed,
        "method": fake.method,
        "output_dir": "outputs",
        "model": {"name": fake.model},
        "algo": {"name": fake.method, **algo},
        "data": {"name": "arithmetic"},
        "reward": {"name": "exact_match"},
        "hardware": {"device": "cpu"},
        "rl": {"rollouts_per_step": 64, "steps": STEPS},
        "tracking": {"uri": None},
        "analysis": {"metric": "final/accuracy", "baseline": "ppo", "margin": 0.01, "allow": [], "price_per_hour": 2.0},
        **fake.config,
    }


def manifest_of(fake: Fake) -> dict[str, Any]:
    slow = 1.25 if fake.method == "ppo" else 0.82
    tokens = 8_200_000 + int(fake.rng("tokens").integers(-20_000, 20_000))
    seconds, memory = 520 * slow + fake.rng("s").normal(0, 8), (2.4 if fake.method == "ppo" else 1.56) * 2**30
    return {
        "versions": {"python": "3.11", "alignbench": "0.1.0", "torch": "2.11.0", "transformers": "5.16.1"},
        "git": {"commit": "a" * 40, "dirty": False},
        "device": "cpu",
        "threads": 2,
        "data": {
            "name": "arithmetic",
            **{part: {"rows": 200, "sha256": part[0] * 64} for part in ("train", "validation", "test")},
        },
        "prompt_order": hashlib.sha256(str(fake.seed).encode()).hexdigest(),
        "artifacts": {"sft": "sft-3f9ac41e0001"},
        "reward": {"name": "exact_match", "sha256": "5d11" * 16},
        "ledger": {
            "prompts": 1280 // (1 if fake.method == "ppo" else 8),
            "completions": 1280,
            "tokens": tokens,
            "optimizer_steps": 160,
            "flops": 1.2e12,
            "seconds": float(seconds),
            "peak_memory_bytes": int(memory + fake.rng("m").normal(0, 5e6)),
        },
        **fake.manifest,
    }


def answers_of(fake: Fake) -> list[dict[str, Any]]:
    right = fake.rng("answers").random(200) < (0.6 if math.isnan(fake.accuracy) else fake.accuracy)
    right[3] = True
    return [
        {
            "prompt_id": f"test-{i:04d}",
            "prompt": f"Compute 47 + 38 * {i}.",
            "response": fake.response(i),
            "reference": str(47 + 38 * i),
            "scores": {"reward": float(right[i])},
            "correct": bool(right[i]),
            "tokens": int(20 + fake.rng("tokens").integers(0, 40) + i % 17),
            "truncated": False,
            "method": fake.method,
            "seed": fake.seed,
            **fake.row(i),
        }
        for i in range(200)
    ]


class Studies:
    """Writes studies into one output folder with one MLflow store."""

    def __init__(self, output_dir: Path) -> None:
        from mlflow.tracking import MlflowClient

        self.output_dir = output_dir
        self.client = MlflowClient(tracking_uri=f"sqlite:///{output_dir}/mlflow.db")
        self.experiment = self.client.create_experiment(
            "alignbench", artifact_location=(output_dir / "mlartifacts").as_uri()
        )

    def write(self, study: str, runs: list[Fake], plan: bool = True) -> str:
        """Write a study and return its name."""
        home = self.output_dir / "runs" / study
        home.mkdir(parents=True)
        planned = [
            {
                "method": r.method,
                "model": r.model,
                "seed": r.seed,
                "key": r.key,
                "run_dir": r.name,
                "overrides": [f"algo={r.method}", f"seed={r.seed}"],
            }
            for r in runs
            if r.planned
        ]
        if plan:
            (home / "study.json").write_text(json.dumps({"study": study, "planned": planned, "command": []}))
        for fake in runs:
            if fake.status != "missing":
                self._write_run(study, home / fake.name, fake)
        return study

    def _write_run(self, study: str, folder: Path, fake: Fake) -> None:
        if fake.on_disk:
            folder.mkdir()
            end = None if fake.status == "running" else f"2026-11-20T10:{fake.seed % 60:02d}:00+00:00"
            status = {
                "status": fake.status,
                "key": fake.key,
                "study": study,
                "method": fake.method,
                "model": fake.model,
                "seed": fake.seed,
                "started": "2026-11-20T09:00:00+00:00",
                "finished": end,
                "reason": fake.reason,
                "resumed": 0,
                "determinism": "bitwise",
            }
            (folder / "status.json").write_text(json.dumps(status))
            (folder / "config.yaml").write_text(yaml.safe_dump(config_of(fake)))
            (folder / "manifest.json").write_text(json.dumps(manifest_of(fake)))
            (folder / "metrics.jsonl").write_text("".join(self._lines(fake)))
            if fake.status == "finished":
                (folder / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers_of(fake)))
        if fake.tracked:
            self._track(study, folder, fake)

    @staticmethod
    def _lines(fake: Fake) -> list[str]:
        lines = []
        for step, row in curves(fake).items():
            metrics = {name: value if math.isfinite(value) else None for name, value in row.items()}
            odd = {name: str(value) for name, value in row.items() if not math.isfinite(value)}
            lines.append(
                json.dumps(
                    {
                        "phase": "rl",
                        "step": step,
                        "time": 0.0,
                        "metrics": metrics,
                        **({"not_finite": odd} if odd else {}),
                    }
                )
                + "\n"
            )
        return lines

    def _track(self, study: str, folder: Path, fake: Fake) -> None:
        from mlflow.entities import Metric

        tags = {
            "study": study,
            "method": fake.method,
            "model": fake.model,
            "seed": str(fake.seed),
            "phase": "rl",
            "key": fake.key,
            "run_dir": str(folder),
        }
        run = self.client.create_run(self.experiment, tags=tags, run_name=fake.name).info.run_id
        points = [
            Metric(name, float(value), 1, step) for step, row in curves(fake).items() for name, value in row.items()
        ]
        self.client.log_batch(run, metrics=points)
        ends = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
        if fake.status in ends:
            self.client.set_terminated(run, ends[fake.status])


def two_by_three(**changes: Any) -> list[Fake]:
    """PPO and GRPO with three seeds each."""
    table = {"ppo": PPO, "grpo": GRPO}
    return [
        Fake(method, seed, accuracy, **changes)
        for method, row in table.items()
        for seed, accuracy in zip(SEEDS[:3], row, strict=True)
    ]


def four_by_five() -> list[Fake]:
    """Four methods with five seeds; RLOO is ahead of PPO and GRPO."""
    table = {
        "ppo": (0.624, 0.641, 0.610, 0.630, 0.619),
        "grpo": (0.645, 0.615, 0.627, 0.634, 0.618),
        "rloo": (0.663, 0.672, 0.656, 0.669, 0.652),
        "dr_grpo": (0.646, 0.622, 0.654, 0.633, 0.651),
    }
    return [
        Fake(method, seed, accuracy) for method, row in table.items() for seed, accuracy in zip(SEEDS, row, strict=True)
    ]
