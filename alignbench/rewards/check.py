"""A reward on a file of responses: what it gives, and whether right answers get more than wrong ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from alignbench.core.batches import Rollouts, Row, Scores
from alignbench.core.errors import UserError
from alignbench.core.protocols import Scorer, learned
from alignbench.data.source import Record, files, read
from alignbench.rewards.separation import separation

COLUMNS = {
    "prompt": ("prompt",),
    "response": ("response", "completion"),
    "reference": ("reference",),
    "label": ("correct",),
}
"""Where to look when no column is named: the names of a run's eval.jsonl, and those of a dataset."""
QUANTILES = {"min": 0.0, "5%": 0.05, "25%": 0.25, "median": 0.5, "75%": 0.75, "95%": 0.95, "max": 1.0}
BINS, BAR, EXAMPLES, SHOWN = 10, 40, 2, 160


@dataclass(frozen=True, kw_only=True)
class Responses:
    """What is scored."""

    rows: tuple[Row, ...]
    texts: tuple[str, ...]
    right: tuple[bool, ...] | None
    """Which responses are right; None where the file does not say."""

    @property
    def prompts(self) -> list[str]:
        """What each answers; its id where the file has no prompts."""
        return [row["prompt"] or row["id"] for row in self.rows]


def load(path: str, named: Mapping[str, str]) -> Responses:
    """The responses in a file or folder; `named` gives columns for prompt, response, reference and label."""
    records = read(files(path))
    column = {what: _column(records[0], what, named.get(what)) for what in COLUMNS}
    if column["response"] is None:
        raise UserError(
            f"{records[0].where}: which column is the response? Its columns are: "
            f"{', '.join(records[0].columns)}. Name it with response=<column>"
        )
    label = column["label"]
    if label and "label" not in named and all(record.columns.get(label) is None for record in records):
        label = None  # a run whose reward does not say what is correct writes null
    return Responses(
        rows=tuple(_row(record, i, column) for i, record in enumerate(records)),
        texts=tuple(_response(record, column["response"]) for record in records),
        right=tuple(_label(record, label) for record in records) if label else None,
    )


def score(reward: Scorer, responses: Responses, batch: int = 256) -> Scores:
    """What the reward says of each. Raises UserError for a row it cannot score."""
    if learned(reward):
        raise UserError(
            "this reward asks a model that reads tokens: a file of texts cannot be scored by it. Its pairs "
            "are checked when the model is trained"
        )
    reward.check(responses.rows)
    starts = range(0, len(responses.rows), batch)
    told = [reward(_rollouts(responses.rows[i : i + batch], responses.texts[i : i + batch])) for i in starts]
    parts = {name: torch.cat([scores.components[name] for scores in told]) for name in told[0].components}
    return Scores(total=torch.cat([scores.total for scores in told]), components=parts)


def report(responses: Responses, scores: Scores) -> str:
    """What there is to know, in lines."""
    total = scores.total.double().numpy()
    prompts = len(set(responses.prompts))
    return "\n".join(
        [
            f"{len(total)} responses to {prompts} prompts",
            *_distribution(total),
            *(f"  {name:<24} mean {float(part.double().mean()):.4f}" for name, part in scores.components.items()),
            *_against(responses, total),
            *_ends(responses, total),
            "",
        ]
    )


def warnings(responses: Responses, total: np.ndarray) -> list[str]:
    """Why nothing, or the wrong thing, would be learned from these scores."""
    top = total > total.max() - 1e-6  # parts that add up to the same may differ in the last digit
    if total.min() > total.max() - 1e-6:
        return ["all responses have the same score"]
    if responses.right is None:
        return [f"{top.mean():.0%} of responses have the highest score"] * bool(top.mean() > 0.5)
    right = np.array(responses.right)
    found = separation(total.tolist(), responses.right, responses.prompts)
    if found is None:
        return [f"all responses are {'right' if right.all() else 'wrong'}: nothing says whether the reward separates"]
    told = []
    if found.low <= 0.5:
        told.append("right answers do not reliably score above wrong ones: not all of the AUC interval is above 0.5")
    if total[right].mean() <= total[~right].mean():
        told.append("right answers do not get more than wrong ones on average")
    if top[~right].mean() > 0.5:
        told.append(f"{top[~right].mean():.0%} of wrong answers have the highest score there is")
    return told


def _column(record: Record, what: str, named: str | None) -> str | None:
    if named is not None:
        if named not in record.columns:
            raise UserError(
                f"{record.where}: {what}={named}, but there is no such column; the columns are: "
                f"{', '.join(record.columns)}"
            )
        return named
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


def _rollouts(rows: tuple[Row, ...], texts: tuple[str, ...]) -> Rollouts:
    """Texts as a reward gets them; it does not read their tokens."""
    n = len(rows)
    return Rollouts(
        prompts=torch.zeros(n, 1, dtype=torch.long),
        prompt_lengths=torch.ones(n, dtype=torch.long),
        responses=torch.zeros(n, 1, dtype=torch.long),
        mask=torch.ones(n, 1, dtype=torch.bool),
        group=torch.arange(n),
        logprobs=torch.zeros(n, 1),
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
        f"  {edge:8.3g} {count:7d} {'#' * round(BAR * count / counts.max())}".rstrip()
        for edge, count in zip(edges, counts, strict=False)
    ]
    return [*lines, *bars]


def _against(responses: Responses, total: np.ndarray) -> list[str]:
    lines = []
    if responses.right is not None:
        right = np.array(responses.right)
        lines = [
            f"{word}: {len(some)} ({len(some) / len(total):.1%}), mean {some.mean():.4f}"
            for word, some in (("right", total[right]), ("wrong", total[~right]))
            if len(some)
        ]
        found = separation(total.tolist(), responses.right, responses.prompts)
        if found:
            lines.append(
                f"AUC {found.auc:.3f}, 95% interval {found.low:.3f} to {found.high:.3f}: how often a right "
                "answer scores above a wrong one"
            )
    return [*lines, *(f"warning: {told}" for told in warnings(responses, total))]


def _ends(responses: Responses, total: np.ndarray) -> list[str]:
    order, lines = np.argsort(total, kind="stable"), []
    for word, picked in (("lowest", order[:EXAMPLES]), ("highest", order[::-1][:EXAMPLES])):
        for i in picked:
            known = "" if responses.right is None else " right" if responses.right[i] else " wrong"
            text = " ".join(responses.texts[i].split())
            lines.append(f"{word} {total[i]:.4g}{known}: {text if len(text) <= SHOWN else '...' + text[-SHOWN:]}")
    return lines
