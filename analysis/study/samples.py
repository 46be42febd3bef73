"""Selects answers of all methods to the same prompts by a fixed rule."""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from statistics import mean
from typing import Any

from markupsafe import Markup, escape

from .load import Run, Study

SHOWN = 1200  # characters of a prompt or an answer
RULES: tuple[tuple[str, Callable[[list[bool]], bool]], ...] = (
    ("first prompt that every method answers correctly", all),
    ("first prompt on which the methods disagree", lambda right: any(right) and not all(right)),
    ("first prompt that every method answers incorrectly", lambda right: not any(right)),
)


Table = dict[str, dict[str, Any]]
"""The answers of one run by prompt."""


@dataclass(frozen=True)
class Answer:
    """The answer of one method."""

    method: str
    text: str
    correct: bool | None
    tokens: int | None
    reward: float | None
    gold: float | None
    truncated: bool


@dataclass(frozen=True)
class Sample:
    """One held-out prompt with the answers of all methods."""

    rule: str
    prompt_id: str
    prompt: str
    reference: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Samples:
    """The selected prompts and their seed, or why there are none."""

    seed: int | None
    picked: tuple[Sample, ...]
    reason: str | None = None


def select_samples(study: Study) -> Samples:
    """The first prompt of each rule, in file order, at the lowest seed with answers of all methods."""
    seeds = [
        {run.seed: run for run in study.runs_of(method) if run.status == "finished" and run.answers}
        for method in study.methods
    ]
    common = set.intersection(*map(set, seeds))
    if not common:
        return Samples(None, (), "no seed has an eval.jsonl from every method")
    seed = min(common)
    return Samples(seed, tuple(_pick([runs[seed] for runs in seeds])))


def _pick(runs: list[Run]) -> list[Sample]:
    tables = [{str(row["prompt_id"]): row for row in run.answers} for run in runs]
    shared = [prompt for prompt in tables[0] if all(prompt in table for table in tables)]
    if any(table[prompt].get("correct") is None for prompt in shared for table in tables):
        return [_sample(rule, prompt, runs, tables) for rule, prompt in _neither_right_nor_wrong(shared, tables)]
    found = []
    for rule, holds in RULES:
        match = next((p for p in shared if holds([bool(table[p]["correct"]) for table in tables])), None)
        if match is not None:
            found.append(_sample(rule, match, runs, tables))
    return found


def _neither_right_nor_wrong(shared: list[str], tables: list[Table]) -> list[tuple[str, str]]:
    """The first prompt; where gold is known also those with the best and the worst answers by the mean over methods."""
    golds = {prompt: [(table[prompt].get("scores") or {}).get("gold") for table in tables] for prompt in shared}
    known = {prompt: mean([float(gold or 0.0) for gold in row]) for prompt, row in golds.items() if None not in row}
    first = [("first prompt of the held-out set (answers have no correctness)", shared[0])]
    if not known:
        return first
    best, worst = max(known, key=lambda prompt: known[prompt]), min(known, key=lambda prompt: known[prompt])
    named = [*first, ("prompt with the highest mean gold", best), ("prompt with the lowest mean gold", worst)]
    return [pair for place, pair in enumerate(named) if pair[1] not in [prompt for _, prompt in named[:place]]]


def _sample(rule: str, prompt: str, runs: list[Run], tables: list[Table]) -> Sample:
    rows = [table[prompt] for table in tables]
    answers = tuple(_answer(run, row) for run, row in zip(runs, rows, strict=True))
    return Sample(rule, prompt, shortened(rows[0]["prompt"]), shortened(rows[0].get("reference")), answers)


def _answer(run: Run, row: dict[str, Any]) -> Answer:
    scores = row.get("scores") or {}
    reward = scores.get("total", scores.get("reward", next(iter(scores.values()), None)))
    return Answer(
        method=run.method,
        text=shortened(row["response"]),
        correct=row.get("correct"),
        tokens=row.get("tokens"),
        reward=reward,
        gold=scores.get("gold"),
        truncated=bool(row.get("truncated")),
    )


def shortened(value: object) -> str:
    """The text, cut after SHOWN characters with the number of characters left out."""
    text = "" if value is None else str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} [{len(text) - SHOWN:,} more characters]"


def visible(text: str) -> Markup:
    """Text safe to display: markup escaped; control, bidi and other invisible characters drawn as boxes."""
    return Markup("").join(_box(letter) if _is_hidden(letter) else escape(letter) for letter in text)


def _is_hidden(letter: str) -> bool:
    return letter not in "\n\t" and unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Co", "Cn")


def _box(letter: str) -> Markup:
    return Markup('<span class="cc" title="invisible character">U+{:04X}</span>').format(ord(letter))
