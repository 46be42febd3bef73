"""With each report: write it down, show it, save it."""

import logging
import sys
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from alignbench.core.errors import InvariantBroken
from alignbench.core.metric_names import BUDGET, PEAK_MEMORY, SECONDS, TRACKING_SECONDS
from alignbench.engine.run_state import RunState, StepReport
from alignbench.stages.failure_dump import placed
from alignbench.store.run_logger import RunLogger

logger = logging.getLogger(__name__)
LINES_PER_PHASE = 10
"""How many lines a phase prints where there is no terminal."""


class Display:
    """One progress display on a terminal, a few plain lines elsewhere; used in a `with` statement."""

    def __init__(self) -> None:
        self.console = Console(stderr=False, highlight=False, soft_wrap=True)
        self._bars = (
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[shown]}"),
                console=self.console,
            )
            if sys.stdout.isatty()
            else None
        )

    def __enter__(self) -> Self:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bars:
            self._bars.stop()

    def say(self, text: str) -> None:
        """One line that stays."""
        self.console.print(text, markup=False)
        logger.info(text)

    def watch(
        self, reports: Iterable[StepReport], phase: str, total: int, shown: dict[str, str]
    ) -> Iterator[StepReport]:
        """Pass the reports of a phase on, showing its progress and the metrics named in `shown` under those labels."""
        task = self._bars.add_task(phase, total=total, shown="") if self._bars else None
        every = max(total // LINES_PER_PHASE, 1)
        for report in reports:
            known = {label: report.metrics[name] for name, label in shown.items() if name in report.metrics}
            text = "  ".join(f"{label} {value:.4g}" for label, value in known.items())
            line = f"{phase} {report.state.step}/{total}  {text}"
            logger.info(line)
            if self._bars and task is not None:
                self._bars.update(task, completed=report.state.step, shown=text)
            elif report.state.step % every == 0 or report.state.step == total:
                self.console.print(line, markup=False)
            for warning in report.warnings:
                self.say(f"warning at {phase} step {report.state.step}: {warning}")
            yield report


def write_down(reports: Iterable[StepReport], logbook: RunLogger, phase: str) -> Iterator[StepReport]:
    """Record the metrics of each report, with the budget spent so far and what it cost; or what broke it, and where."""
    try:
        for report in reports:
            spent = {**ledger(report.state), TRACKING_SECONDS: logbook.seconds}
            logbook.record(phase, report.state.step, {**report.metrics, **spent})
            yield report
    except InvariantBroken as broken:
        raise placed(broken, logbook, phase) from broken


def keep_samples(report: StepReport, logbook: RunLogger, count: int) -> None:
    """Keep the distribution of a step's rewards, and its first rollouts as a table."""
    scored, step = report.scored, report.state.step
    assert scored is not None, "only a step of reinforcement learning has samples"
    logbook.histogram("rewards", step, scored.scores.tolist())
    logbook.table(
        f"samples-{step:06d}",
        [
            {
                "prompt": scored.rows[i]["prompt"],
                "response": scored.texts[i],
                "reward": float(scored.scores[i]),
                "tokens": int(scored.mask[i].sum()),
            }
            for i in range(min(count, len(scored)))
        ],
    )


def ledger(state: RunState) -> dict[str, float]:
    """What a run has spent so far, by the names of the record."""
    spent = (state.prompts_seen, state.completions, state.tokens_written, state.optimizer_steps, state.flops)
    return {**dict(zip(BUDGET, map(float, spent), strict=True)), SECONDS: state.seconds, PEAK_MEMORY: peak_memory()}


def peak_memory() -> float:
    """The most memory this process has held, in bytes: of the GPU where one is used, else of the process."""
    import torch

    from alignbench.kernels.hardware import resident_memory

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return float(torch.cuda.max_memory_allocated())
    return float(resident_memory(peak=True))
