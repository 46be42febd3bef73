"""Logs the metrics of each step, shows progress on the terminal, and saves samples of rollouts."""

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
from alignbench.stages.failure_dump import save_failed_batch
from alignbench.store.run_logger import RunLogger

logger = logging.getLogger(__name__)
LINES_PER_STAGE = 10
"""Lines that a stage prints where the output is not a terminal."""


class Display:
    """A progress bar on a terminal, a few plain lines elsewhere; a context manager."""

    def __init__(self) -> None:
        self.console = Console(stderr=False, highlight=False, soft_wrap=True)
        self._bars = (
            Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[metrics]}"),
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

    def print(self, text: str) -> None:
        """Print a line above the progress bar, and log it."""
        self.console.print(text, markup=False)
        logger.info(text)

    def show_progress(
        self, reports: Iterable[StepReport], stage: str, total: int, displayed: dict[str, str]
    ) -> Iterator[StepReport]:
        """Yield the reports of a stage, displaying its progress; `displayed` maps metric names to their labels."""
        task = self._bars.add_task(stage, total=total, metrics="") if self._bars else None
        every = max(total // LINES_PER_STAGE, 1)
        for report in reports:
            values = {label: report.metrics[name] for name, label in displayed.items() if name in report.metrics}
            text = "  ".join(f"{label} {value:.4g}" for label, value in values.items())
            line = f"{stage} {report.state.step}/{total}  {text}"
            logger.info(line)
            if self._bars and task is not None:
                self._bars.update(task, completed=report.state.step, metrics=text)
            elif report.state.step % every == 0 or report.state.step == total:
                self.console.print(line, markup=False)
            for warning in report.warnings:
                self.print(f"warning at {stage} step {report.state.step}: {warning}")
            yield report


def log_steps(reports: Iterable[StepReport], run_logger: RunLogger, stage: str) -> Iterator[StepReport]:
    """Log the metrics of each step with the budget spent so far; on a broken invariant, save its batch and re-raise."""
    try:
        for report in reports:
            spent = {**budget_spent(report.state), TRACKING_SECONDS: run_logger.seconds}
            run_logger.record(stage, report.state.step, {**report.metrics, **spent})
            yield report
    except InvariantBroken as broken:
        raise save_failed_batch(broken, run_logger, stage) from broken


def log_samples(report: StepReport, run_logger: RunLogger, count: int) -> None:
    """Log the histogram of a step's rewards, and its first `count` rollouts as a table."""
    scored, step = report.scored, report.state.step
    assert scored is not None, "only an RL step has samples"
    run_logger.histogram("rewards", step, scored.scores.tolist())
    run_logger.table(
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


def budget_spent(state: RunState) -> dict[str, float]:
    """The budget that a run has spent so far, by metric name."""
    spent = (state.prompts_seen, state.completions, state.tokens_written, state.optimizer_steps, state.flops)
    return {**dict(zip(BUDGET, map(float, spent), strict=True)), SECONDS: state.seconds, PEAK_MEMORY: peak_memory()}


def peak_memory() -> float:
    """Peak memory in bytes: allocated on the GPU where one is used, else resident memory of the process."""
    import torch

    from alignbench.kernels.hardware import resident_memory

    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return float(torch.cuda.max_memory_allocated())
    return float(resident_memory(peak=True))
