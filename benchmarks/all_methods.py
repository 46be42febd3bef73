"""One run of each method on the built-in model, from one SFT model, and a table of their results.

    python -m benchmarks.all_methods [docs/all_methods.md] [key=value ...]     overrides for every run, as rl.steps=2

Finished runs are not repeated, so the command can be stopped and started again.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import alignbench as ab

ROOT = Path(__file__).parents[1]
STUDY = "all_methods"
METHODS = sorted(path.stem for path in (ROOT / "conf" / "algo").glob("*.yaml"))

HEAD = """\
# Every method on the built-in model

Made by `python -m benchmarks.all_methods{overrides}`; do not edit. One run of each method, seed 42, from the same SFT
model, with the same prompts in the same order. One seed shows that a method learns, not which method is better: for
that, see the study in the README. KL is in nats per response; tokens are all sampled tokens, including groups that
dynamic sampling rejected; seconds are those of the RL loop on a shared machine and cannot be compared.

| method | accuracy before | after | KL | responses | tokens | optimizer steps | seconds |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""


def train(method: str, overrides: Sequence[str]) -> None:
    """Run a method in a new process. Raises CalledProcessError when the run fails."""
    command = [sys.executable, "-m", "alignbench", f"algo={method}", f"study={STUDY}", *overrides]
    subprocess.run(command, cwd=ROOT, check=True)


def load_results(runs: Path, method: str) -> dict[str, float]:
    """The last value of every RL metric, and the final evaluation, of the newest run of a method."""
    folder = max(runs.glob(f"{method}-*"), key=lambda path: (path / "metrics.jsonl").stat().st_mtime)
    run = ab.load_run(folder)
    training = run.metrics[run.metrics["stage"] == "rl"].drop(columns="stage").ffill().iloc[-1]
    return {**{str(name): float(value) for name, value in training.items()}, **run.summary}


def row(method: str, results: Mapping[str, float]) -> str:
    """One row of the table."""
    before, after = results["final/start_accuracy"], results["final/accuracy"]
    counts = (results[f"budget/{name}"] for name in ("completions", "tokens", "optimizer_steps"))
    cells = [
        f"`{method}`",
        f"{before:.1%}",
        f"{after:.1%}",
        f"{results['final/kl']:.2f}",
        *(f"{int(count):,}" for count in counts),
        f"{results['cost/seconds']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str]) -> None:
    """Run the methods that are missing, then write the table."""
    overrides = [argument for argument in arguments if "=" in argument]
    target = next((Path(word) for word in arguments if "=" not in word), ROOT / "docs" / "all_methods.md")
    values = dict(override.split("=", 1) for override in overrides)
    runs = ROOT / values.get("output_dir", "outputs") / "runs" / STUDY
    for method in METHODS:
        train(method, overrides)
    rows = [row(method, load_results(runs, method)) for method in METHODS]
    shown = "".join(f" {override}" for override in overrides if not override.startswith("output_dir="))
    target.write_text(HEAD.format(overrides=shown) + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
