"""Time of the report on a large synthetic study: 60 runs of 1,000 steps with 20 metrics each.

python -m benchmarks.analysis_speed [folder]           writes the study into the folder, or reuses it
python -m benchmarks.analysis_speed folder --profile   prints a profile
"""

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml

from benchmarks.page import print_line

Point = tuple[str, float, int, bool, int, str]
"""Metric, value, timestamp, whether it is NaN, step and run id."""
METHODS, SEEDS, STEPS, PROMPTS = ("ppo", "grpo", "rloo", "dr_grpo"), range(1, 16), 1000, 300
EVERY_STEP = ("rewards/mean", "rewards/std", "rollout/response_length", "rollout/kl_sequence", "rollout/kl_token",
              "rollout/truncated_fraction", "train/entropy", "train/clip_fraction", "train/policy_loss",
              "train/total_loss", "train/grad_norm", "train/kl_mean", "budget/tokens", "budget/prompts",
              "budget/completions", "cost/seconds")  # fmt: skip
MEASURED = ("eval/accuracy", "eval/avg_reward", "eval/kl", "eval/avg_response_length")
"""With the sixteen above 20 metrics, all logged at every step."""


def curves(method: str, seed: int) -> np.ndarray:
    """Values of each metric at each step [STEPS, 20]: an increase with noise."""
    rng = np.random.default_rng([seed, *method.encode()])
    rise = 1 - np.exp(-4 * np.arange(1, STEPS + 1) / STEPS)
    table = 0.4 + 0.2 * rise[:, None] + rng.normal(0, 0.01, (STEPS, len(EVERY_STEP) + len(MEASURED)))
    for name, per_step in (("budget/tokens", 4e4), ("budget/prompts", 16), ("budget/completions", 128),
                           ("cost/seconds", 0.5)):  # fmt: skip
        table[:, EVERY_STEP.index(name)] = per_step * np.arange(1, STEPS + 1)
    return table


def finals(method: str, seed: int) -> dict[str, float]:
    """The metrics of the final evaluation."""
    rng = np.random.default_rng([seed, 1, *method.encode()])
    noise = rng.normal(0, 0.015, 5)
    return {
        "final/accuracy": 0.62 + 0.02 * METHODS.index(method) + noise[0],
        "final/avg_reward": 0.62 + noise[1],
        "final/kl": 5 + 10 * noise[2],
        "final/avg_response_length": 60 + 100 * noise[3],
        "final/truncated_fraction": abs(noise[4]),
        "final/start_accuracy": 0.4,
    }


def write(folder: Path) -> None:
    """Write the run folders of the study, and an MLflow store with every metric."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    experiment, home = client.create_experiment("alignbench"), folder / "runs" / "large"
    home.mkdir(parents=True)
    planned, points = [], list[Point]()
    for method, seed in ((m, s) for s in SEEDS for m in METHODS):
        key, name = hashlib.sha256(f"{method}-{seed}".encode()).hexdigest(), f"{method}-tiny-s{seed}"
        planned.append({"method": method, "model": "tiny", "seed": seed, "key": key, "run_dir": name,
                        "overrides": [f"algo={method}", f"seed={seed}"]})  # fmt: skip
        _write_run(home / name, method, seed, key)
        tags = {"study": "large", "method": method, "model": "tiny", "seed": str(seed), "phase": "rl", "key": key}
        run = client.create_run(experiment, tags=tags, run_name=name).info.run_id
        client.set_terminated(run, "FINISHED")
        points += list(_points(run, method, seed))
    (home / "study.json").write_text(json.dumps({"study": "large", "planned": planned, "command": []}))
    _insert(folder / "mlflow.db", points)


def _write_run(folder: Path, method: str, seed: int, key: str) -> None:
    folder.mkdir()
    status = {"status": "finished", "key": key, "study": "large", "method": method, "model": "tiny", "seed": seed,
              "started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T01:00:00+00:00", "reason": None,
              "resumed": 0, "determinism": "bitwise"}  # fmt: skip
    data = {part: {"rows": PROMPTS, "sha256": part} for part in ("train", "validation", "test")}
    ledger = {"prompts": 16_000, "completions": 128_000, "tokens": 4e7, "optimizer_steps": 2000, "flops": 1e15,
              "seconds": 500.0, "peak_memory_bytes": 2**30}  # fmt: skip
    manifest = {"versions": {"torch": "2"}, "git": {"commit": "a" * 40, "dirty": False}, "device": "cpu",
                "data": {"name": "arithmetic", **data}, "prompt_order": str(seed), "artifacts": {"sft": "sft-1"},
                "reward": {"name": "exact_match", "sha256": "b" * 64}, "ledger": ledger}  # fmt: skip
    config = {"seed": seed, "names": {"method": method}, "algo": {"name": method}, "rl": {"steps": STEPS},
              "analysis": {"margin": 0.02}}  # fmt: skip
    (folder / "status.json").write_text(json.dumps(status))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    names, table = [*EVERY_STEP, *MEASURED], curves(method, seed)
    with (folder / "metrics.jsonl").open("w") as file:
        for step, row in enumerate(table.tolist(), 1):
            last = finals(method, seed) if step == STEPS else {}
            metrics = {**dict(zip(names, row, strict=True)), **last}
            file.write(json.dumps({"phase": "rl", "step": step, "time": 0.0, "metrics": metrics}) + "\n")
    rng = np.random.default_rng([seed, 2, *method.encode()])
    with (folder / "eval.jsonl").open("w") as file:
        for prompt, correct in enumerate(rng.random(PROMPTS) < finals(method, seed)["final/accuracy"]):
            row = {"prompt_id": f"test-{prompt}", "prompt": f"Compute {prompt} + 1.", "reference": str(prompt + 1),
                   "response": f"{prompt} + 1 = {prompt + int(correct)}", "scores": {"total": float(correct)},
                   "correct": bool(correct), "tokens": 9, "truncated": False, "method": method,
                   "seed": seed}  # fmt: skip
            file.write(json.dumps(row) + "\n")


def _points(run: str, method: str, seed: int) -> Iterator[Point]:
    names = [*EVERY_STEP, *MEASURED]
    for step, row in enumerate(curves(method, seed).tolist(), 1):
        for name, value in zip(names, row, strict=True):
            yield name, value, step, False, step, run
    for name, value in finals(method, seed).items():
        yield name, value, STEPS, False, STEPS, run


def _insert(database: Path, points: list[Point]) -> None:
    """Insert into MLflow's tables, which takes seconds; its client would take minutes for 1.2 million points."""
    into = "(key, value, timestamp, is_nan, step, run_uuid)"
    with sqlite3.connect(database) as store:
        store.executemany(f"insert into metrics {into} values (?, ?, ?, ?, ?, ?)", points)
        latest = {(point[0], point[5]): point for point in points}
        store.executemany(f"insert into latest_metrics {into} values (?, ?, ?, ?, ?, ?)", latest.values())


def measure(folder: Path, *arguments: str) -> tuple[float, float]:
    """Wall seconds and CPU seconds of the report command."""
    command = [sys.executable, "-m", "analysis", "study=large", f"output_dir={folder}", *arguments]
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
    start, before = time.perf_counter(), os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **compiled})
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, cpu


def main(folder: Path, profile: bool) -> None:
    """Write the study if it does not exist, and measure."""
    if not (folder / "runs" / "large" / "study.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write(folder)
    if profile:
        command = [sys.executable, "-m", "cProfile", "-s", "cumtime", "-m", "analysis", "study=large",
                   f"output_dir={folder}"]  # fmt: skip
        subprocess.run(command, check=True)
        return
    size = f"{len(METHODS) * len(SEEDS)} runs x {STEPS:,} steps x {len(EVERY_STEP) + len(MEASURED)} metrics"
    for when in ("first call after installation", "later calls"):
        wall, cpu = measure(folder)
        print_line(f"{size}, {when}: {wall:.1f} s, {cpu:.1f} CPU seconds")


if __name__ == "__main__":
    folders = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(folders[0] if folders else temporary), "--profile" in sys.argv)
