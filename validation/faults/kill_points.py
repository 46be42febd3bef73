"""Kill points of a run, sampled with a seed from the file events of an uninterrupted run."""

import json
import random
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from validation.faults.kill_switch import RUN


@dataclass(frozen=True)
class KillPoint:
    """Right before the (skip + 1)-th file event of a process that matches, or `seconds` after it."""

    event: str
    path: str
    skip: int
    seconds: float
    process: str = RUN

    def switch(self, number: int, alone: bool = False) -> str:
        """The argument of `validation.faults.kill_switch`. `number` is the signal; `alone`: for this process only."""
        path = "/" + re.escape(self.path).replace("HASH", "[0-9a-f]{64}")
        return json.dumps({**asdict(self), "path": path, "number": number, "alone": alone})

    def __str__(self) -> str:
        count = f", time {self.skip + 1}" if self.skip else ""
        by = "" if self.process == RUN else f" by the {self.process}"
        name = re.sub(r"-[0-9a-f]{8,12}\b", "", self.path).replace(".HASH.", ".")
        return f"{'before' if not self.seconds else f'{self.seconds:.3f} s after'} {self.event} of `{name}`{count}{by}"


@dataclass(frozen=True)
class Section:
    """A part of a run: from the first file event that matches `begin` to the first after it that matches `end`."""

    name: str
    begin: str
    end: str
    only: str | None = None
    """Kill only right before an event that matches this."""


SECTIONS = (
    Section("start, before anything is trained", r"", r"artifacts/sft-\w+\.tracking/"),
    Section("SFT", r"sft-\w+\.tracking/metrics", r"sft-\w+\.building/model/"),
    Section("SFT artifact being written", r"sft-\w+\.building/model/", r"artifacts/sft-\w{12}$"),
    Section(
        "SFT artifact being renamed",
        r"sft-\w+\.building/model/",
        r"artifacts$",
        only=r"rename .*artifacts/sft-\w{12}$|open .*artifacts$",
    ),
    Section("reward model", r"reward_model-\w+\.tracking/metrics", r"reward_model-\w+\.building/model/"),
    Section("reward model being written", r"reward_model-\w+\.building/model/", r"artifacts/reward_model-\w{12}$"),
    Section(
        "reward model being renamed",
        r"reward_model-\w+\.building/model/",
        r"artifacts$",
        only=r"rename .*artifacts/reward_model-\w{12}$|open .*artifacts$",
    ),
    Section("RL", r"runs/.*/metrics\.jsonl", r"\.eval\.jsonl\.part"),
    Section("checkpoint being written", r"/checkpoints$", r"\.eval\.jsonl\.part", only=r"mkdir .*/checkpoints$"),
    Section(
        "checkpoint being renamed",
        r"checkpoints/unfinished",
        r"\.eval\.jsonl\.part",
        only=r"(rename|remove) .*/step-|open .*/checkpoints$",
    ),
    Section("evaluation", r"checkpoints$", r"\.eval\.jsonl\.part"),
    Section("after the evaluation", r"\.eval\.jsonl\.part", r"no such path"),
    Section("final model being written", r"\.final\.part", r"/final$", only=r"open .*/\.final\.part/|rename .*/final$"),
    Section("MLflow run being created", r"mlflow_run_id", r"no such path", only=r"rename .*runs/.*mlflow_run_id$"),
)


class History:
    """The file events of an uninterrupted run, below its output folder."""

    def __init__(self, trace: Path, output_dir: Path) -> None:
        rows = [json.loads(line) for line in trace.read_text().splitlines()]
        self.end: float = max(row[0] for row in rows)
        base = f"{output_dir}/"
        self.events: list[tuple[float, str, str, str]] = [
            (at, kind, re.sub(r"\b[0-9a-f]{64}\b", "HASH", path.removeprefix(base)), process)
            for at, kind, path, process in rows
            if path.startswith(base)
        ]

    def kill_point(self, section: Section, rng: random.Random, process: str | None = None) -> KillPoint:
        """A kill point in that section; with `process`, at an event of that process."""
        begin, end = self._span(section)
        if process is not None:
            span = range(begin, min(end + 1, len(self.events)))
            return self._named(rng.choice([n for n in span if self.events[n][3] == process]), 0.0)
        if section.only is None:
            at = rng.uniform(self.events[begin][0], self.events[end][0] if end < len(self.events) else self.end)
            number = max(n for n, event in enumerate(self.events) if event[0] <= at)
            return self._named(number, at - self.events[number][0])
        fitting = [n for n in range(begin, end + 1) if n < len(self.events) and re.search(section.only, self._text(n))]
        number = rng.choice(fitting)
        written = "written" in section.name
        return self._named(number, rng.uniform(0, self._until_next(number)) if written else 0.0)

    def _span(self, section: Section) -> tuple[int, int]:
        begin = next(n for n in range(len(self.events)) if re.search(section.begin, self.events[n][2]))
        if section.name == "evaluation":  # begins after the last checkpoint
            begin = max(n for n in range(len(self.events)) if re.search(section.begin, self.events[n][2]))
        after = (n for n in range(begin + 1, len(self.events)) if re.search(section.end, self.events[n][2]))
        return begin, next(after, len(self.events))

    def _text(self, number: int) -> str:
        return " ".join(self.events[number][1:3])

    def _until_next(self, number: int) -> float:
        later = self.events[number + 1][0] if number + 1 < len(self.events) else self.end
        return later - self.events[number][0]

    def _named(self, number: int, seconds: float) -> KillPoint:
        _, event, path, process = self.events[number]
        earlier = [n for n in range(number) if self.events[n][1:] == (event, path, process)]
        return KillPoint(event, path, len(earlier), seconds, process)
