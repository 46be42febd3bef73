"""When a run must not go on: which step it was, and the batch it worked on, for whoever has to find out why."""

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


class Witness:
    """A scorer that remembers what it scored since it was last told to forget."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._seen: list[tuple[Rollouts, Scores | None]] = []

    def __call__(self, rollouts: Rollouts) -> Scores:
        """What the scorer says."""
        self._seen.append((rollouts, None))
        scores = self._scorer(rollouts)
        self._seen[-1] = (rollouts, scores)
        return scores

    def check(self, rows: Sequence[Row]) -> None:
        """As the scorer does."""
        self._scorer.check(rows)

    def content_hash(self) -> str:
        """That of the scorer."""
        return self._scorer.content_hash()

    def forget(self) -> None:
        """A step is over."""
        self._seen.clear()

    def rows(self, done: int) -> Rows:
        """Each rollout of the step after `done`: prompt, response, tokens with their log-probabilities, score."""
        return [
            {
                "prompt": row["prompt"],
                "response": rollouts.texts[i],
                "id": row["id"],
                "score": scores and float(scores.total[i]),
                **_tokens(rollouts, i),
                "logprobs": rollouts.logprobs[i][rollouts.mask[i]].tolist(),
            }
            for rollouts, scores in self._seen
            for i, row in enumerate(rollouts.rows)
        ]


def watched(reports: Iterator[StepReport], done: int, batch: "Witness | Callable[[int], Rows]") -> Iterator[StepReport]:
    """The reports that follow `done` steps; what breaks one is told its number, and the rows of its batch."""
    rows = batch.rows if isinstance(batch, Witness) else batch
    try:
        for report in reports:
            done = report.state.step
            yield report
            if isinstance(batch, Witness):
                batch.forget()
    except InvariantBroken as broken:
        broken.step, broken.rows = done + 1, rows(done)
        raise


def given(batch: Sequences | Pairs, text: Text) -> Rows:
    """The rows of a batch that was given, as text and as tokens; of pairs the chosen ones, then the rejected."""
    sequences = batch.both if isinstance(batch, Pairs) else batch
    return [
        {"prompt": text.decode(tokens["prompt_tokens"]), "completion": text.decode(tokens["tokens"]), **tokens}
        for tokens in (_tokens(sequences, i) for i in range(len(sequences)))
    ]


def placed(broken: InvariantBroken, logbook: RunLogger, phase: str) -> InvariantBroken:
    """The same with its place: the phase, the step, and the file that its batch is now in."""
    if broken.step is None:
        return broken
    path = logbook.run_dir / f"broken-{phase}-{broken.step:06d}.jsonl"
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in broken.rows))
    return InvariantBroken(f"{phase} step {broken.step}: {broken} The batch of that step is in {path}")


def _tokens(batch: Sequences, row: int) -> dict[str, list[int]]:
    prompt = batch.prompts[row]
    return {
        "prompt_tokens": prompt[len(prompt) - int(batch.prompt_lengths[row]) :].tolist(),
        "tokens": batch.responses[row][batch.mask[row]].tolist(),
    }
