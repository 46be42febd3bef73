"""What the benchmark on a GPU found, as lines and as a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.lower_bound import Least
from benchmarks.workload import PARTS, Load, Step

GIB = 1 << 30


@dataclass(frozen=True)
class Alone:
    """Tokens in a second."""

    ours: float
    generate: float


@dataclass(frozen=True, kw_only=True)
class Found:
    """One cell: a shape, a format and a method."""

    name: str
    step: Step
    tokens: int
    """Written in the step."""
    peak: int
    """Bytes, the model among them."""
    floor: dict[str, Least]
    shared: bool
    """Whether siblings are read behind one prompt."""
    grouped: bool
    """Whether they are written behind one."""
    alone: Alone | None
    """The sampler against generate; told once for both methods."""
    trl: dict[str, float] | None = None
    """Seconds of TRL's step, by part."""

    @property
    def speed(self) -> float:
        """Tokens written in a second of the rollout."""
        return self.tokens / self.step.seconds["rollout"]


HEAD = """\
# A step on {machine}

Made by `python -m benchmarks.gpu`, torch {torch}; {answers} answers a step, {prompt} + {answer} tokens, microbatches of
{microbatch}. Shares are those of the seconds that bytes and matrix products alone would take. Gap: the most that
sampler and update differed on a token's log-probability, in nats. Generate and TRL: how many times slower they are.
"""
COLUMNS = (
    "cell",
    "tokens / s",
    "step, s",
    "rollout",
    "score",
    "update",
    "peak, GiB",
    "bandwidth floor, rollout",
    "score",
    "update",
    "matmul floor, rollout",
    "score",
    "update",
    "gap",
    "generate",
    "TRL's step",
)


def say(text: str) -> None:
    """A line on the screen at once."""
    print(text, flush=True)


def shares(cell: Found, what: str) -> list[str]:
    """The part of the measured seconds that this floor explains."""
    return [f"{getattr(cell.floor[part], what) / cell.step.seconds[part]:.0%}" for part in PARTS]


def row(cell: Found) -> list[str]:
    """One line of the table."""
    trl = "" if cell.trl is None else f"{sum(cell.trl.values()) / cell.step.whole:.2f}"
    generate = "" if cell.alone is None else f"{cell.alone.ours / cell.alone.generate:.2f}"
    return [
        cell.name,
        f"{cell.speed:,.0f}",
        f"{cell.step.whole:.2f}",
        *(f"{cell.step.seconds[part]:.2f}" for part in PARTS),
        f"{cell.peak / GIB:.2f}",
        *shares(cell, "bandwidth"),
        *shares(cell, "matmul"),
        f"{cell.step.gap:.3f}",
        generate,
        trl,
    ]


def tell(cell: Found) -> str:
    """The same in words."""
    floors = "; ".join(
        f"{part} {cell.step.seconds[part]:.2f} s (bandwidth floor {bandwidth}, matmul floor {matmul})"
        for part, bandwidth, matmul in zip(PARTS, shares(cell, "bandwidth"), shares(cell, "matmul"), strict=True)
    )
    told = [
        f"{cell.name}: {cell.speed:,.0f} tokens/s; {floors}; peak {cell.peak / GIB:.2f} GiB",
        f"prompts {'shared' if cell.shared else 'repeated'} when read, "
        f"{'shared' if cell.grouped else 'repeated'} when written, gap {cell.step.gap:.3f}",
    ]
    if cell.alone is not None:
        told.append(f"sampler {cell.alone.ours:,.0f} tokens/s, generate {cell.alone.generate:,.0f}")
    if cell.trl is not None:
        parts = ", ".join(f"{part} {seconds:.2f} s" for part, seconds in cell.trl.items())
        told.append(f"TRL {parts}, {sum(cell.trl.values()) / cell.step.whole:.2f} times our step")
    return "; ".join(told)


def write(found: Sequence[Found], load: Load, device: str, target: Path | None) -> None:
    """All of it as a page: on the screen, and in a file where one is given."""
    machine = torch.cuda.get_device_name() if device == "cuda" else "a CPU"
    head = HEAD.format(machine=machine, torch=torch.__version__, answers=load.answers, **vars(load))
    marks = ["---", *["---:"] * (len(COLUMNS) - 1)]
    lines = [f"| {' | '.join(cells)} |" for cells in (COLUMNS, marks, *map(row, found))]
    page = head + "\n" + "\n".join(lines) + "\n"
    say("\n" + page)
    if target is not None:
        target.write_text(page)
