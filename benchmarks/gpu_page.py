"""The results of the GPU benchmark as lines of text and as a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.lower_bound import Floor
from benchmarks.page import format_table, print_line
from benchmarks.workload import PARTS, Load, StepTiming

GIB = 1 << 30


@dataclass(frozen=True)
class SamplerSpeed:
    """Tokens per second of the sampler and of transformers' generate."""

    ours: float
    generate: float


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """The measurements of one cell: a model shape, a weight format and a method."""

    name: str
    step: StepTiming
    tokens: int
    """Tokens sampled in the step."""
    peak: int
    """Peak memory in bytes, model included."""
    floor: dict[str, Floor]
    shares_prompts: bool
    """Whether scoring and update process a prompt once for its responses."""
    shares_prefix: bool
    """Whether the sampler does."""
    sampler: SamplerSpeed | None
    """Measured once for both methods."""
    trl: dict[str, float] | None = None
    """Seconds of each part of TRL's step."""

    @property
    def speed(self) -> float:
        """Sampled tokens per second of the rollout."""
        return self.tokens / self.step.seconds["rollout"]


HEAD = """\
# A step on {machine}

Made by `python -m benchmarks.gpu`, torch {torch}; {responses} responses per step, {prompt_tokens} + {response_tokens}
tokens, microbatches of {microbatch}. Floors are lower bounds from bytes and matrix products alone, in percent of the
measured seconds. Gap: the largest difference between sampler and update in the log-probability of a token, in nats.
Generate and TRL: how many times slower they are.
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


def bandwidth_shares(cell: CellResult) -> list[str]:
    """The bandwidth floor of each part in percent of the measured seconds."""
    return [f"{cell.floor[part].bandwidth / cell.step.seconds[part]:.0%}" for part in PARTS]


def matmul_shares(cell: CellResult) -> list[str]:
    """The matmul floor of each part in percent of the measured seconds."""
    return [f"{cell.floor[part].matmul / cell.step.seconds[part]:.0%}" for part in PARTS]


def row(cell: CellResult) -> list[str]:
    """One row of the table."""
    trl = "" if cell.trl is None else f"{sum(cell.trl.values()) / cell.step.total:.2f}"
    generate = "" if cell.sampler is None else f"{cell.sampler.ours / cell.sampler.generate:.2f}"
    return [
        cell.name,
        f"{cell.speed:,.0f}",
        f"{cell.step.total:.2f}",
        *(f"{cell.step.seconds[part]:.2f}" for part in PARTS),
        f"{cell.peak / GIB:.2f}",
        *bandwidth_shares(cell),
        *matmul_shares(cell),
        f"{cell.step.gap:.3f}",
        generate,
        trl,
    ]


def describe(cell: CellResult) -> str:
    """The result as one line of text."""
    floors = "; ".join(
        f"{part} {cell.step.seconds[part]:.2f} s (bandwidth floor {bandwidth}, matmul floor {matmul})"
        for part, bandwidth, matmul in zip(PARTS, bandwidth_shares(cell), matmul_shares(cell), strict=True)
    )
    facts = [
        f"{cell.name}: {cell.speed:,.0f} tokens/s; {floors}; peak {cell.peak / GIB:.2f} GiB",
        f"prompts {'shared' if cell.shares_prompts else 'repeated'} in scoring and update, "
        f"{'shared' if cell.shares_prefix else 'repeated'} in the sampler, gap {cell.step.gap:.3f}",
    ]
    if cell.sampler is not None:
        facts.append(f"sampler {cell.sampler.ours:,.0f} tokens/s, generate {cell.sampler.generate:,.0f}")
    if cell.trl is not None:
        parts = ", ".join(f"{part} {seconds:.2f} s" for part, seconds in cell.trl.items())
        facts.append(f"TRL {parts}, {sum(cell.trl.values()) / cell.step.total:.2f} times the step of alignbench")
    return "; ".join(facts)


def write(results: Sequence[CellResult], load: Load, device: str, target: Path | None) -> None:
    """Print the page, and write it to `target` unless that is None."""
    machine = torch.cuda.get_device_name() if device == "cuda" else "a CPU"
    head = HEAD.format(machine=machine, torch=torch.__version__, responses=load.responses, **vars(load))
    page = head + "\n" + format_table(COLUMNS, map(row, results)) + "\n"
    print_line("\n" + page)
    if target is not None:
        target.write_text(page)
