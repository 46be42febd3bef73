"""Faults other than a kill: signals, damaged files, MLflow failures, a full disk, the same command twice."""

import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from validation.faults.end_state import read_metrics
from validation.faults.kill_points import SECTIONS, Section
from validation.faults.kill_switch import FOLLOWER
from validation.faults.mlflow_server import Server
from validation.faults.trials import ATTEMPTS, NOTHING, ROOT, Outcome, Trials, command

NOT_TRIED = "not tried: "
RL = next(section for section in SECTIONS if section.name == "RL")
KEPT = ("half-written files",)
"""A damaged file is kept beside its replacement."""


def cause_faults(trials: Trials) -> Iterator[Outcome]:
    """Cause each fault, one after the other."""
    for method, number in zip(trials.methods, (signal.SIGINT, signal.SIGTERM), strict=False):
        output_dir, point = trials.stop(method, RL, number)
        trials.finish(trials.words(method, output_dir))
        yield Outcome(f"{signal.Signals(number).name} in RL", f"{method}, {point}", trials.lost(method, output_dir))
    for fault, damage in DAMAGE.items():
        yield damaged_file(trials, fault, damage)
    yield repeated_kills(trials)
    yield same_sweep_twice(trials)
    yield follower_killed(trials)
    yield database_locked(trials)
    yield server_killed(trials)
    yield disk_full(trials)


def flip_bit(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a bit flipped in the newest checkpoint": lambda out: flip_bit(max(out.glob("runs/*/*/checkpoints/step-*"))),
    "the newest checkpoint truncated": lambda out: truncate(max(out.glob("runs/*/*/checkpoints/step-*")), 1000),
    "a bit flipped in the SFT model": lambda out: flip_bit(weights(out, "sft")),
    "a file of the reward model removed": lambda out: weights(out, "reward_model").unlink(),
    "the last line of metrics.jsonl truncated": lambda out: truncate(next(out.glob("runs/*/*/metrics.jsonl")), -20),
    "the line of the newest checkpoint damaged": lambda out: damage_newest_line(next(out.glob("runs/*/*"))),
}


def damage_newest_line(run_dir: Path) -> None:
    """Change one bit in the metrics of the step of the newest checkpoint."""
    newest = int(re.findall(r"step-(\d+)", max(run_dir.glob("checkpoints/step-*")).name)[0])
    lines = (run_dir / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if f'"step": {newest},'.encode() in line)
    half = len(lines[at]) // 2
    lines[at] = lines[at][:half] + bytes([lines[at][half] ^ 1]) + lines[at][half + 1 :]
    (run_dir / "metrics.jsonl").write_bytes(b"".join(lines))


def weights(output_dir: Path, phase: str) -> Path:
    """The weights file of a shared model."""
    return next(output_dir.glob(f"artifacts/{phase}-????????????/model/*.safetensors"))


def truncate(path: Path, length: int) -> None:
    """Keep only the first `length` bytes of a file."""
    path.write_bytes(path.read_bytes()[:length])


def damaged_file(trials: Trials, fault: str, damage: Callable[[Path], None]) -> Outcome:
    """Kill a run in RL when it has two checkpoints, damage a file, and run the same command again."""
    method = trials.methods[0]
    while True:
        output_dir, _ = trials.stop(method, RL)
        if len(list(output_dir.glob("runs/*/*/checkpoints/step-*"))) == 2:
            break
    damage(output_dir)
    trials.finish(trials.words(method, output_dir))
    return Outcome(fault, f"{method}, after a kill in RL", trials.lost(method, output_dir, KEPT))


def repeated_kills(trials: Trials) -> Outcome:
    """Kill one run repeatedly, each time later than before."""
    method, output_dir = trials.methods[-1], trials.new_output_dir()
    for section in (section for section in SECTIONS if section.only is None):
        point = trials.histories()[method].kill_point(section, trials.rng)
        trials.run(trials.words(method, output_dir), point.switch(signal.SIGKILL))
    trials.finish(trials.words(method, output_dir))
    return Outcome("one run killed repeatedly", f"{method}, up to 9 times", trials.lost(method, output_dir))


def same_sweep_twice(trials: Trials) -> Outcome:
    """Run the same sweep twice at the same time."""
    output_dir, alone = trials.new_output_dir(), trials.new_output_dir()
    words = command(["--multirun", *trials.words("grpo", output_dir, "seed=1,2")])
    twins = [
        subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)
    ]
    outputs = [twin.communicate()[0] for twin in twins]
    trials.finish(["--multirun", *trials.words("grpo", alone, "seed=1,2")])
    ends = zip((twin.returncode for twin in twins), outputs, strict=True)
    wrong = [f"exit {code}: {text[-300:]}" for code, text in ends if code]
    for folder in alone.glob("runs/faults/*-s?-*"):
        other = output_dir / folder.relative_to(alone)
        if read_metrics(folder) != read_metrics(other) or json.loads((other / "status.json").read_text())["resumed"]:
            wrong.append(folder.name)
    return Outcome(
        "the same sweep run twice at once", "grpo, two seeds, both sweeps in parallel", ", ".join(wrong) or NOTHING
    )


def follower_killed(trials: Trials) -> Outcome:
    """Kill the process that logs to MLflow, and the one that replaces it: the run finishes, and sync logs the rest."""
    method, anywhere = trials.methods[0], Section("anywhere", r"", r"no such path")
    for _ in range(ATTEMPTS):
        point = trials.histories()[method].kill_point(anywhere, trials.rng, FOLLOWER)
        output_dir = trials.new_output_dir()
        done = trials.run(trials.words(method, output_dir), point.switch(signal.SIGKILL, alone=True))
        assert done.returncode == 0, done.stdout + done.stderr
        if "is started again" in done.stderr:
            break
    sync(output_dir)
    return Outcome("the follower killed, logged later", f"{method}, {point}", trials.lost(method, output_dir))


def database_locked(trials: Trials, seconds: float = 30.0) -> Outcome:
    """Lock MLflow's SQLite database from another process for some seconds."""
    method, output_dir = trials.methods[0], trials.new_output_dir()
    run = subprocess.Popen(
        command(trials.words(method, output_dir)), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not list(output_dir.glob("artifacts/sft-*.tracking/mlflow_run_id")):
        time.sleep(0.05)
    with closing(sqlite3.connect(output_dir / "mlflow.db", timeout=60, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        database.execute("ROLLBACK")
    assert run.wait() == 0
    sync(output_dir)
    return Outcome(
        "MLflow's database locked",
        f"{method}, for {seconds:.0f} seconds, from the first step of SFT",
        trials.lost(method, output_dir),
    )


def server_killed(trials: Trials) -> Outcome:
    """Kill a real MLflow server during RL, and start it again after the run."""
    method, output_dir = trials.methods[0], trials.new_output_dir()
    with Server(output_dir) as server:
        words = trials.words(method, output_dir, f"tracking.uri={server.uri}")
        run = subprocess.Popen(command(words), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not list(output_dir.glob("runs/*/*/checkpoints/step-*")):
            time.sleep(0.02)
        server.kill()
        assert run.wait() == 0
        server.start()
        sync(output_dir)
        sync(output_dir)
        lost = trials.lost(method, output_dir, uri=server.uri)
    return Outcome("MLflow's server killed in RL, logged later", f"{method}, with `alignbench sync`", lost)


def sync(output_dir: Path) -> None:
    """Run `alignbench sync`."""
    subprocess.run(
        [sys.executable, "-m", "alignbench", "sync", str(output_dir)], cwd=ROOT, check=True, capture_output=True
    )


def disk_full(trials: Trials) -> Outcome:
    """Run on a small disk that fills up, and enlarge it."""
    method, fault = trials.methods[0], "disk full"
    try:
        with small_disk(trials.folder / "disk", "2m") as output_dir:
            done = trials.run(trials.words(method, output_dir))
            if done.returncode != 2 or done.stderr.count("error:") != 1 or "output_dir=" not in done.stderr:
                return Outcome(fault, method, f"exit {done.returncode}: {done.stderr[-300:]}")
            subprocess.run(["mount", "-o", "remount,size=200m", str(output_dir)], check=True, capture_output=True)
            trials.finish(trials.words(method, output_dir))
            return Outcome(fault, f"{method}, on a disk of 2 MB that was enlarged", trials.lost(method, output_dir))
    except subprocess.CalledProcessError as error:
        return Outcome(fault, "needs the permission to mount a small disk", NOT_TRIED + error.stderr.decode().strip())


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a tmpfs of that size."""
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True, capture_output=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)
