"""Moments at which a run can be killed: drawn with a seed from all that an uninterrupted run did to its files."""

import json
import random
import re
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Moment:
    """Right before the (skip + 1)-th time that something happens to a path, or `seconds` after it."""

    event: str
    path: str
    skip: int
    seconds: float

    def fuse(self, number: int) -> str:
        """As `validation.faults.kill_switch` reads it, with the signal that it sends."""
        path = "/" + re.escape(self.path).replace("HASH", "[0-9a-f]{64}")
        return json.dumps({**asdict(self), "path": path, "number": number})

    def __str__(self) -> str:
        count = f", time {self.skip + 1}" if self.skip else ""
        name = re.sub(r"-[0-9a-f]{8,12}\b", "", self.path).replace(".HASH.", ".")
        return f"{'before' if not self.seconds else f'{self.seconds:.3f} s after'} {self.event} of `{name}`{count}"


@dataclass(frozen=True)
class Place:
    """A part of a run: from the first file event that matches `begin` to the first after it that matches `end`."""

    name: str
    begin: str
    end: str
    only: str | None = None
    """Kill right before an event that matches this, instead of at any time."""


PLACES = (
    Place("start, before anything is trained", r"", r"artifacts/sft-\w+\.tracking/"),
    Place("SFT", r"sft-\w+\.tracking/metrics", r"sft-\w+\.building/model/"),
    Place("SFT artifact being written", r"sft-\w+\.building/model/", r"artifacts/sft-\w{12}$"),
    Place(
        "SFT artifact being renamed",
        r"sft-\w+\.building/model/",
        r"artifacts$",
        only=r"rename .*artifacts/sft-\w{12}$|open .*artifacts$",
    ),
    Place("reward model", r"reward_model-\w+\.tracking/metrics", r"reward_model-\w+\.building/model/"),
    Place("reward model being written", r"reward_model-\w+\.building/model/", r"artifacts/reward_model-\w{12}$"),
    Place(
        "reward model being renamed",
        r"reward_model-\w+\.building/model/",
        r"artifacts$",
        only=r"rename .*artifacts/reward_model-\w{12}$|open .*artifacts$",
    ),
    Place("RL", r"runs/.*/metrics\.jsonl", r"\.eval\.jsonl\.part"),
    Place("checkpoint being written", r"/checkpoints$", r"\.eval\.jsonl\.part", only=r"mkdir .*/checkpoints$"),
    Place(
        "checkpoint being renamed",
        r"checkpoints/unfinished",
        r"\.eval\.jsonl\.part",
        only=r"(rename|remove) .*/step-|open .*/checkpoints$",
    ),
    Place("evaluation", r"checkpoints$", r"\.eval\.jsonl\.part"),
    Place("after the evaluation", r"\.eval\.jsonl\.part", r"a path that is nowhere"),
    Place("final model being written", r"\.final\.part", r"/final$", only=r"open .*/\.final\.part/|rename .*/final$"),
    Place("MLflow run being made", r"mlflow_run_id", r"a path that is nowhere", only=r"rename .*runs/.*mlflow_run_id$"),
)


class History:
    """The file events of an uninterrupted run, below its output folder."""

    def __init__(self, trace: Path, output_dir: Path) -> None:
        rows = [json.loads(line) for line in trace.read_text().splitlines()]
        self.end = rows[-1][0]
        base = f"{output_dir}/"
        self.events = [
            (at, what, re.sub(r"\b[0-9a-f]{64}\b", "HASH", path.removeprefix(base)))
            for at, what, path in rows
            if path.startswith(base)
        ]

    def moment(self, place: Place, rng: random.Random) -> Moment:
        """A moment in that place."""
        begin, end = self._span(place)
        if place.only is None:
            at = rng.uniform(self.events[begin][0], self.events[end][0] if end < len(self.events) else self.end)
            number = max(n for n, event in enumerate(self.events) if event[0] <= at)
            return self._named(number, at - self.events[number][0])
        fitting = [n for n in range(begin, end + 1) if n < len(self.events) and re.search(place.only, self._text(n))]
        number = rng.choice(fitting)
        written = "written" in place.name
        return self._named(number, rng.uniform(0, self._until_next(number)) if written else 0.0)

    def _span(self, place: Place) -> tuple[int, int]:
        begin = next(n for n in range(len(self.events)) if re.search(place.begin, self.events[n][2]))
        if place.name == "evaluation":  # begins when the last checkpoint stands
            begin = max(n for n in range(len(self.events)) if re.search(place.begin, self.events[n][2]))
        after = (n for n in range(begin + 1, len(self.events)) if re.search(place.end, self.events[n][2]))
        return begin, next(after, len(self.events))

    def _text(self, number: int) -> str:
        return " ".join(self.events[number][1:])

    def _until_next(self, number: int) -> float:
        later = self.events[number + 1][0] if number + 1 < len(self.events) else self.end
        return later - self.events[number][0]

    def _named(self, number: int, seconds: float) -> Moment:
        _, event, path = self.events[number]
        same = [n for n in range(number) if self.events[n][1:] == (event, path)]
        return Moment(event, path, len(same), seconds)
