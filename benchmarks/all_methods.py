"""Does every method learn? One run of each on the embedded default, from one SFT model, and a table of them.

    python -m benchmarks.all_methods [docs/all_methods.md] [key=value ...]     overrides for every run, as rl.steps=2

Runs that are finished are taken as they are, so the command can be stopped and typed again.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
METHODS = sorted(path.stem for path in (ROOT / "conf" / "algo").glob("*.yaml"))

HEAD = """\
# Every method on the embedded default

Made by `python -m benchmarks.all_methods{given}`; do not edit. One run of each method, seed 42, from the same SFT model
and with the same prompts, in the same order. One seed says that a method learns, not which is better: see the study
of the README for that. KL is in nats for a whole answer; tokens are all that were drawn, also those that dynamic
sampling left out; seconds are those of the RL loop, on a machine that did other things too: they compare nothing.

| method | accuracy before | after | KL | answers | tokens | optimizer steps | seconds |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""


def train(method: str, overrides: list[str]) -> None:
    """One ordinary run, in a process of its own. Raises CalledProcessError when it fails."""
    subprocess.run(
        [sys.executable, "-m", "alignbench", f"algo={method}", "study=family", *overrides], cwd=ROOT, check=True
    )


def numbers(runs: Path, method: str) -> dict[str, float]:
    """The last value of every metric of RL, and of the final evaluation, in the newest run of a method."""
    folders = sorted(runs.glob(f"{method}-*/metrics.jsonl"), key=lambda path: path.stat().st_mtime)
    found: dict[str, float] = {}
    for record in map(json.loads, folders[-1].read_text().splitlines()):
        keep = record["phase"] == "rl"
        found |= {name: value for name, value in record["metrics"].items() if keep or name.startswith("final/")}
    return found


def row(method: str, found: dict[str, float]) -> str:
    """One line of the table."""
    before, after = found["final/start_accuracy"], found["final/accuracy"]
    counts = (found[f"budget/{name}"] for name in ("completions", "tokens", "optimizer_steps"))
    cells = [
        f"`{method}`",
        f"{before:.1%}",
        f"{after:.1%}",
        f"{found['final/kl']:.2f}",
        *(f"{int(count):,}" for count in counts),
        f"{found['cost/seconds']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def main(words: list[str]) -> None:
    """Train what is missing, then write the table."""
    overrides = [word for word in words if "=" in word]
    target = next((Path(word) for word in words if "=" not in word), ROOT / "docs" / "all_methods.md")
    given = dict(word.split("=", 1) for word in overrides)
    runs = ROOT / given.get("output_dir", "outputs") / "runs" / "family"
    for method in METHODS:
        train(method, overrides)
    rows = [row(method, numbers(runs, method)) for method in METHODS]
    told = "".join(f" {word}" for word in overrides if not word.startswith("output_dir="))
    target.write_text(HEAD.format(given=told) + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
