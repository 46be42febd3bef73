"""Scores a file of responses with a reward and reports whether correct answers score above incorrect ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from alignbench.core.batches import Rollouts, Row, Scores
from alignbench.core.errors import UserError
from alignbench.core.protocols import Scorer, learned
from alignbench.data.source import Record, find_files, read_files
from alignbench.rewards.separation import compute_separation

COLUMNS = {
    "prompt": ("prompt",),
    "response": ("response", "completion"),
    "reference": ("reference",),
    "label": ("correct",),
}
"""Default columns: those of a run's eval.jsonl and of a dataset. The first that the file has is used."""
QUANTILES = {"min": 0.0, "5%": 0.05, "25%": 0.25, "median": 0.5, "75%": 0.75, "95%": 0.95, "max": 1.0}
BINS, BAR_WIDTH, EXAMPLES, EXAMPLE_CHARACTERS = 10, 40, 2, 160


@dataclass(frozen=True, kw_only=True)
class Responses:
    """Responses of a file, with the rows that a reward reads."""

    rows: tuple[Row, ...]
    texts: tuple[str, ...]
    correct: tuple[bool, ...] | None
    """Which responses are correct; None without a label column."""
    token_counts: tuple[int, ...] | None = None
    """Tokens of each response; None where the file has no column `tokens`."""

    @property
    def prompts(self) -> list[str]:
        """The prompt of each response; the row id where the file has no prompts."""
        return [row["prompt"] or row["id"] for row in self.rows]


def load_responses(path: str, columns: Mapping[str, str]) -> Responses:
    """The responses in a file or folder; `columns` names those of prompt, response, reference and label."""
    records = read_files(find_files(path))
    column = {what: _find_column(records[0], what, columns.get(what)) for what in COLUMNS}
    if column["response"] is None:
        raise UserError(
            f"{records[0].where}: which column is the response? Its columns are: "
            f"{', '.join(records[0].columns)}. Name it with response=<column>"
        )
    label = column["label"]
    if label and "label" not in columns and all(record.columns.get(label) is None for record in records):
        label = None  # null in the eval.jsonl of a run whose reward does not measure correctness
    return Responses(
        rows=tuple(_row(record, i, column) for i, record in enumerate(records)),
        texts=tuple(_response(record, column["response"]) for record in records),
        correct=tuple(_label(record, label) for record in records) if label else None,
        token_counts=_token_counts(records),
    )


def score_responses(reward: Scorer, responses: Responses, batch_size: int = 256) -> Scores:
    """The scores of all responses, [n]. Raises UserError for a row that the reward cannot score."""
    if learned(reward):
        raise UserError(
            "this reward needs a trained reward model, which cannot score a file of texts. Its preference pairs are "
            "checked when the model is trained"
        )
    reward.check(responses.rows)
    starts = range(0, len(responses.rows), batch_size)
    batches = [reward(_rollouts(responses, slice(start, start + batch_size))) for start in starts]
    components = {name: torch.cat([scores.components[name] for scores in batches]) for name in batches[0].components}
    return Scores(total=torch.cat([scores.total for scores in batches]), components=components)


def format_report(responses: Responses, scores: Scores) -> str:
    """The distribution of the scores, their components, the comparison with the labels, warnings and examples."""
    total = scores.total.double().numpy()
    prompts = len(set(responses.prompts))
    return "\n".join(
        [
            f"{len(total)} responses to {prompts} prompts",
            *_distribution(total),
            *(f"  {name:<24} mean {float(part.double().mean()):.4f}" for name, part in scores.components.items()),
            *_compare_with_labels(responses, total),
            *_examples(responses, total),
            "",
        ]
    )


def find_warnings(responses: Responses, total: np.ndarray) -> list[str]:
    """Reasons why training on these scores, [n], would teach nothing or the wrong behaviour."""
    top = total > total.max() - 1e-6  # equal up to floating-point error
    if total.min() > total.max() - 1e-6:
        return ["all responses have the same score"]
    if responses.correct is None:
        return [f"{top.mean():.0%} of responses have the highest score"] * bool(top.mean() > 0.5)
    correct = np.array(responses.correct)
    separation = compute_separation(total.tolist(), responses.correct, responses.prompts)
    if separation is None:
        same = "correct" if correct.all() else "incorrect"
        return [f"all responses are {same}: whether the reward separates correct from incorrect ones is unknown"]
    found = []
    if separation.low <= 0.5:
        found.append("correct answers do not reliably score above incorrect ones: the AUC interval is not above 0.5")
    if total[correct].mean() <= total[~correct].mean():
        found.append("the mean score of correct answers is not above that of incorrect ones")
    if top[~correct].mean() > 0.5:
        found.append(f"{top[~correct].mean():.0%} of incorrect answers have the highest score")
    return found


def _find_column(record: Record, what: str, name: str | None) -> str | None:
    if name is not None:
        if name not in record.columns:
            raise UserError(
                f"{record.where}: {what}={name}, but the file has no such column; the columns are: "
                f"{', '.join(record.columns)}"
            )
        return name
    return next((name for name in COLUMNS[what] if name in record.columns), None)


def _row(record: Record, number: int, column: Mapping[str, str | None]) -> Row:
    known = {name: value for name, value in record.columns.items() if value is not None}
    row: dict[str, Any] = {"id": str(known.get("prompt_id", known.get("id", number))), "prompt": "", **known}
    row |= {what: known[name] for what in ("prompt", "reference") if (name := column[what]) in known}
    return row | {"id": str(row["id"])}


def _response(record: Record, column: str | None) -> str:
    value = record.columns.get(str(column))
    if not isinstance(value, str):
        raise UserError(f"{record.where}: column {column!r} must be a text, found {value!r:.60}")
    return value


def _label(record: Record, column: str) -> bool:
    value = record.columns.get(column)
    if value not in (True, False):
        raise UserError(f"{record.where}: column {column!r} must be true or false, found {value!r:.60}")
    return bool(value)


def _token_counts(records: Sequence[Record]) -> tuple[int, ...] | None:
    values = [record.columns.get("tokens") for record in records]
    counts = tuple(value for value in values if type(value) is int and value >= 0)
    return counts if len(counts) == len(values) else None


def _rollouts(responses: Responses, batch: slice) -> Rollouts:
    """Texts as a reward reads them; all tokens are 0, and without known token counts there are none."""
    rows, texts = responses.rows[batch], responses.texts[batch]
    counts = torch.tensor(responses.token_counts[batch] if responses.token_counts else [0] * len(rows))
    n, width = len(rows), int(counts.max())
    return Rollouts(
        prompts=torch.zeros(n, 1, dtype=torch.long),
        prompt_lengths=torch.ones(n, dtype=torch.long),
        responses=torch.zeros(n, width, dtype=torch.long),
        mask=torch.arange(width) < counts[:, None],
        group=torch.arange(n),
        logprobs=torch.zeros(n, width),
        truncated=torch.zeros(n, dtype=torch.bool),
        texts=texts,
        rows=rows,
    )


def _distribution(total: np.ndarray) -> list[str]:
    quantiles = "  ".join(f"{name} {np.quantile(total, q):.4g}" for name, q in QUANTILES.items())
    lines = [f"score  mean {total.mean():.4f}  std {total.std():.4f}", f"  {quantiles}"]
    if total.min() == total.max():
        return lines
    counts, edges = np.histogram(total, bins=BINS)
    bars = [
        f"  {edge:8.3g} {count:7d} {'#' * round(BAR_WIDTH * count / counts.max())}".rstrip()
        for edge, count in zip(edges, counts, strict=False)
    ]
    return [*lines, *bars]


def _compare_with_labels(responses: Responses, total: np.ndarray) -> list[str]:
    lines = []
    if responses.correct is not None:
        correct = np.array(responses.correct)
        lines = [
            f"{label}: {len(scores)} ({len(scores) / len(total):.1%}), mean {scores.mean():.4f}"
            for label, scores in (("correct", total[correct]), ("incorrect", total[~correct]))
            if len(scores)
        ]
        separation = compute_separation(total.tolist(), responses.correct, responses.prompts)
        if separation:
            lines.append(
                f"AUC {separation.auc:.3f}, 95% interval {separation.low:.3f} to {separation.high:.3f}: probability "
                "that a correct answer scores above an incorrect one"
            )
    return [*lines, *(f"warning: {warning}" for warning in find_warnings(responses, total))]


def _examples(responses: Responses, total: np.ndarray) -> list[str]:
    order, lines = np.argsort(total, kind="stable"), []
    for label, indices in (("lowest", order[:EXAMPLES]), ("highest", order[::-1][:EXAMPLES])):
        for i in indices:
            correct = "" if responses.correct is None else " correct" if responses.correct[i] else " incorrect"
            text = " ".join(responses.texts[i].split())
            end = text if len(text) <= EXAMPLE_CHARACTERS else "..." + text[-EXAMPLE_CHARACTERS:]
            lines.append(f"{label} {total[i]:.4g}{correct}: {end}")
    return lines
