"""Faults that are not a kill: signals, damaged files, a tracker that goes away, a full disk, the same thing twice."""

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

from validation.faults.end_state import numbers
from validation.faults.kill_points import PLACES
from validation.faults.mlflow_server import Server
from validation.faults.trials import NOTHING, ROOT, Told, Trials, command

NOT_TRIED = "not tried: "
RL = next(place for place in PLACES if place.name == "RL")
LEFT_ASIDE = ("half-written files",)
"""What was damaged is kept beside its repair."""


def mishaps(trials: Trials) -> Iterator[Told]:
    """All of them, one after the other."""
    for method, number in zip(trials.methods, (signal.SIGINT, signal.SIGTERM), strict=False):
        output_dir, moment = trials.stopped(method, RL, number)
        trials.finish(trials.typed(method, output_dir))
        yield Told(f"{signal.Signals(number).name} in RL", f"{method}, {moment}", trials.lost(method, output_dir))
    for what, harm in DAMAGE.items():
        yield damaged(trials, what, harm)
    yield killed_often(trials)
    yield twice_at_once(trials)
    yield database_locked(trials)
    yield server_killed(trials)
    yield disk_full(trials)


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a bit flipped in the newest checkpoint": lambda out: flip(max(out.glob("runs/*/*/checkpoints/step-*"))),
    "the newest checkpoint cut short": lambda out: cut(max(out.glob("runs/*/*/checkpoints/step-*")), 1000),
    "a bit flipped in the SFT model": lambda out: flip(weights(out, "sft")),
    "a file of the reward model gone": lambda out: weights(out, "reward_model").unlink(),
    "the last line of metrics.jsonl cut short": lambda out: cut(next(out.glob("runs/*/*/metrics.jsonl")), -20),
    "the line behind the newest checkpoint damaged": lambda out: damage_newest(next(out.glob("runs/*/*"))),
}


def damage_newest(run_dir: Path) -> None:
    """Change one bit in the numbers of the newest checkpoint's step."""
    newest = int(re.findall(r"step-(\d+)", max(run_dir.glob("checkpoints/step-*")).name)[0])
    lines = (run_dir / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if f'"step": {newest},'.encode() in line)
    half = len(lines[at]) // 2
    lines[at] = lines[at][:half] + bytes([lines[at][half] ^ 1]) + lines[at][half + 1 :]
    (run_dir / "metrics.jsonl").write_bytes(b"".join(lines))


def weights(output_dir: Path, phase: str) -> Path:
    """The file of a shared model's weights."""
    return next(output_dir.glob(f"artifacts/{phase}-????????????/model/*.safetensors"))


def cut(path: Path, length: int) -> None:
    """Leave only the beginning of a file."""
    path.write_bytes(path.read_bytes()[:length])


def damaged(trials: Trials, what: str, harm: Callable[[Path], None]) -> Told:
    """A run killed in RL when it has two checkpoints, a file damaged, and the run typed again."""
    method = trials.methods[0]
    while True:
        output_dir, _ = trials.stopped(method, RL)
        if len(list(output_dir.glob("runs/*/*/checkpoints/step-*"))) == 2:
            break
    harm(output_dir)
    trials.finish(trials.typed(method, output_dir))
    return Told(what, f"{method}, while it was killed in RL", trials.lost(method, output_dir, LEFT_ASIDE))


def killed_often(trials: Trials) -> Told:
    """One run killed again and again, each time later than before."""
    method, output_dir = trials.methods[-1], trials.fresh()
    for place in (place for place in PLACES if place.only is None):
        moment = trials.histories()[method].moment(place, trials.rng)
        trials.run(trials.typed(method, output_dir), moment.fuse(signal.SIGKILL))
    trials.finish(trials.typed(method, output_dir))
    return Told("one run killed again and again", f"{method}, up to 9 times", trials.lost(method, output_dir))


def twice_at_once(trials: Trials) -> Told:
    """The same sweep typed twice at the same time."""
    output_dir, alone = trials.fresh(), trials.fresh()
    words = command(["--multirun", *trials.typed("grpo", output_dir, "seed=1,2")])
    twins = [
        subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)
    ]
    said = [twin.communicate()[0] for twin in twins]
    trials.finish(["--multirun", *trials.typed("grpo", alone, "seed=1,2")])
    ends = zip((twin.returncode for twin in twins), said, strict=True)
    wrong = [f"exit {code}: {text[-300:]}" for code, text in ends if code]
    for folder in alone.glob("runs/faults/*-s?-*"):
        other = output_dir / folder.relative_to(alone)
        if numbers(folder) != numbers(other) or json.loads((other / "status.json").read_text())["resumed"]:
            wrong.append(folder.name)
    return Told(
        "the same sweep typed twice at once", "grpo, two seeds, both sweeps side by side", ", ".join(wrong) or NOTHING
    )


def database_locked(trials: Trials, seconds: float = 30.0) -> Told:
    """MLflow's SQLite database held by somebody else, so that nobody can write."""
    method, output_dir = trials.methods[0], trials.fresh()
    run = subprocess.Popen(
        command(trials.typed(method, output_dir)), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not list(output_dir.glob("artifacts/sft-*.tracking/mlflow_run_id")):
        time.sleep(0.05)
    with closing(sqlite3.connect(output_dir / "mlflow.db", timeout=60, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        database.execute("ROLLBACK")
    assert run.wait() == 0
    sync(output_dir)
    return Told(
        "MLflow's database locked",
        f"{method}, for {seconds:.0f} seconds, from the first step of SFT",
        trials.lost(method, output_dir),
    )


def server_killed(trials: Trials) -> Told:
    """A real MLflow server killed during RL, and started again when the run is over."""
    method, output_dir = trials.methods[0], trials.fresh()
    with Server(output_dir) as server:
        words = trials.typed(method, output_dir, f"tracking.uri={server.uri}")
        run = subprocess.Popen(command(words), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not list(output_dir.glob("runs/*/*/checkpoints/step-*")):
            time.sleep(0.02)
        server.kill()
        assert run.wait() == 0
        server.start()
        sync(output_dir)
        sync(output_dir)
        lost = trials.lost(method, output_dir, uri=server.uri)
    return Told("MLflow's server killed in RL, told later", f"{method}, with `alignbench sync`", lost)


def sync(output_dir: Path) -> None:
    """Tell MLflow what it missed."""
    subprocess.run(
        [sys.executable, "-m", "alignbench", "sync", str(output_dir)], cwd=ROOT, check=True, capture_output=True
    )


def disk_full(trials: Trials) -> Told:
    """A small disk that fills up in the middle, and is made larger."""
    method, what = trials.methods[0], "disk full"
    try:
        with small_disk(trials.folder / "disk", "2m") as output_dir:
            done = trials.run(trials.typed(method, output_dir))
            if done.returncode != 2 or done.stderr.count("error:") != 1 or "output_dir=" not in done.stderr:
                return Told(what, method, f"exit {done.returncode}: {done.stderr[-300:]}")
            subprocess.run(["mount", "-o", "remount,size=200m", str(output_dir)], check=True, capture_output=True)
            trials.finish(trials.typed(method, output_dir))
            return Told(what, f"{method}, on a disk of 2 MB that was made larger", trials.lost(method, output_dir))
    except subprocess.CalledProcessError as refused:
        return Told(what, "needs the right to mount a small disk", NOT_TRIED + refused.stderr.decode().strip())


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A tmpfs of that size."""
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True, capture_output=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)
