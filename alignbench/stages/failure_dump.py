"""Saves the batch of the step that broke an invariant, with the stage and the step, so that the cause can be found."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from alignbench.core.batches import Pairs, Rollouts, Row, Scores, Sequences
from alignbench.core.errors import InvariantBroken
from alignbench.core.protocols import Scorer
from alignbench.engine.run_state import StepReport
from alignbench.models.text import Text
from alignbench.store.disk import write_atomically
from alignbench.store.run_logger import RunLogger

Rows = list[dict[str, Any]]


class FailureRecorder:
    """A scorer that keeps the rollouts it has scored until they are cleared, at the end of each step."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._scored: list[tuple[Rollouts, Scores | None]] = []

    def __call__(self, rollouts: Rollouts) -> Scores:
        """The scores of the wrapped scorer."""
        self._scored.append((rollouts, None))
        scores = self._scorer(rollouts)
        self._scored[-1] = (rollouts, scores)
        return scores

    def check(self, rows: Sequence[Row]) -> None:
        """The check of the wrapped scorer."""
        self._scorer.check(rows)

    def content_hash(self) -> str:
        """The hash of the wrapped scorer."""
        return self._scorer.content_hash()

    def clear(self) -> None:
        """Drop the rollouts of a finished step."""
        self._scored.clear()

    def rows(self, steps_done: int) -> Rows:
        """Each rollout of the current step: prompt, response, tokens with their log-probabilities, and score."""
        return [
            {
                "prompt": row["prompt"],
                "response": rollouts.texts[i],
                "id": row["id"],
                "score": scores and float(scores.total[i]),
                **_tokens(rollouts, i),
                "logprobs": rollouts.logprobs[i][rollouts.mask[i]].tolist(),
            }
            for rollouts, scores in self._scored
            for i, row in enumerate(rollouts.rows)
        ]


def record_failures(
    reports: Iterator[StepReport], steps_done: int, batch: FailureRecorder | Callable[[int], Rows]
) -> Iterator[StepReport]:
    """Yield the reports after `steps_done` steps; an InvariantBroken gets its step and the rows of its batch."""
    rows = batch.rows if isinstance(batch, FailureRecorder) else batch
    try:
        for report in reports:
            steps_done = report.state.step
            yield report
            if isinstance(batch, FailureRecorder):
                batch.clear()
    except InvariantBroken as broken:
        broken.step, broken.rows = steps_done + 1, rows(steps_done)
        raise


def describe_batch(batch: Sequences | Pairs, text: Text) -> Rows:
    """The rows of a training batch as text and as tokens; of preference pairs all chosen rows, then all rejected."""
    sequences = batch.both if isinstance(batch, Pairs) else batch
    return [
        {"prompt": text.decode(tokens["prompt_tokens"]), "completion": text.decode(tokens["tokens"]), **tokens}
        for tokens in (_tokens(sequences, i) for i in range(len(sequences)))
    ]


def save_failed_batch(broken: InvariantBroken, run_logger: RunLogger, stage: str) -> InvariantBroken:
    """Save the batch in the run folder; returns the exception with stage, step and file name in its message."""
    if broken.step is None:
        return broken
    path = run_logger.run_dir / f"broken-{stage}-{broken.step:06d}.jsonl"
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in broken.rows))
    return InvariantBroken(f"{stage} step {broken.step}: {broken} The batch of that step is in {path}")


def _tokens(batch: Sequences, row: int) -> dict[str, list[int]]:
    prompt = batch.prompts[row]
    return {
        "prompt_tokens": prompt[len(prompt) - int(batch.prompt_lengths[row]) :].tolist(),
        "tokens": batch.responses[row][batch.mask[row]].tolist(),
    }
