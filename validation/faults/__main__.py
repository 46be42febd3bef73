"""What is lost when a run is killed, starved or misled: every fault tried, and a table of what became of it.

python -m validation.faults [--write] [kills per place]       with --write the table goes to docs/faults.md
"""

import sys
import tempfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from validation.faults.kill_points import PLACES
from validation.faults.mishaps import NOT_TRIED, mishaps
from validation.faults.trials import NOTHING, ROOT, Told, Trials

HEAD = """\
# What is lost when something breaks

Made by `python -m validation.faults --write{given}`; do not edit. Every fault was done to a run of its own: a real
process on a very small model, with SFT, reward model, RL, evaluation and MLflow on SQLite. Then the same command was
typed again. "Nothing" means that, compared with an uninterrupted run, the metrics of every step, the answers to the
test prompts, the final weights and the shared models are equal bit for bit; that MLflow has the same runs with the same
endings and points, none missing and none twice; and that no half-written file is left. Only what measures the machine
(`cost/`) differs. SFT and the reward model begin again when they are stopped, which gives the same weights; RL goes on
from its newest checkpoint. Moments are drawn with a seed from all that an uninterrupted run does to its files.

| fault | times | lost |
| --- | ---: | --- |
"""


def table(told: Sequence[Told], given: str) -> str:
    """A row for each fault, and below it how and when each was done."""
    of = {one.fault: [other for other in told if other.fault == one.fault] for one in told}
    rows = [
        f"| {fault} | {len(them)} | {'; '.join(dict.fromkeys(one.lost for one in them))} |"
        for fault, them in of.items()
    ]
    each = [f"| {one.fault} | {one.how} |" for one in told]
    head = HEAD.format(given=given)
    return head + "\n".join([*rows, "", "## Each of them", "", "| fault | how |", "| --- | --- |", *each]) + "\n"


def main(words: Sequence[str]) -> int:
    """Try every fault. Returns 1 when one of them cost something."""
    numbers, told = [int(word) for word in words if word.isdigit()], list[Told]()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        trials = Trials(Path(folder))
        for one in chain(trials.kills(PLACES, *numbers), mishaps(trials)):
            told.append(one)
            sys.stdout.write(f"{one.fault}: {one.how}: lost {one.lost}\n")
            sys.stdout.flush()
            if "--write" in words:
                page = table(told, "".join(f" {number}" for number in numbers))
                (ROOT / "docs" / "faults.md").write_text(page)
    return int(any(one.lost != NOTHING and not one.lost.startswith(NOT_TRIED) for one in told))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
