"""Builds answer pairs: answers of two methods to the same prompt at the same seed, on a fixed sample of prompts."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations
from typing import Any

from ..study.load import Run, Study

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class AnswerPair:
    """Two answers to one prompt; `answers` are the treatment's and the baseline's."""

    treatment: str
    baseline: str
    seed: int
    prompt_id: str
    prompt: str
    reference: str
    answers: tuple[str, str]

    @property
    def identical(self) -> bool:
        """Both answers are the same text: a tie without a call."""
        return self.answers[0] == self.answers[1]


@dataclass(frozen=True, kw_only=True)
class AnswerPairs:
    """Answer pairs of a study in judging order.

    `prompts`: sampled prompts; `available`: prompts to sample from; `unpaired`: answers to sampled prompts without a
    counterpart.
    """

    pairs: tuple[AnswerPair, ...]
    prompts: int
    available: int
    unpaired: int


def sampling_key(prompt_id: str) -> str:
    """Sort key of a prompt: a hash, so that every prefix of the order is a random sample."""
    return sha256(f"judge/{prompt_id}".encode()).hexdigest()


def make_answer_pairs(study: Study, methods: list[str], max_prompts: int) -> AnswerPairs:
    """Pair the answers of every two methods at every seed that both finished, on at most `max_prompts` prompts.

    `methods` in the order of the report: the earlier method of a pair is the baseline. The pairs are ordered by prompt,
    so that judging which stops at the spending limit covers whole prompts.
    """
    tables = {
        method: {run.seed: _table(run) for run in study.runs_of(method) if _has_answers(run)} for method in methods
    }
    known = {prompt for runs in tables.values() for table in runs.values() for prompt in table}
    chosen = sorted(known, key=sampling_key)[:max_prompts]
    pairs = tuple(pair for prompt in chosen for pair in _pairs_on(prompt, study.seeds, methods, tables))
    paired = {(method, pair.seed, pair.prompt_id) for pair in pairs for method in (pair.treatment, pair.baseline)}
    answers = sum(prompt in table for runs in tables.values() for table in runs.values() for prompt in chosen)
    return AnswerPairs(pairs=pairs, prompts=len(chosen), available=len(known), unpaired=answers - len(paired))


def _has_answers(run: Run) -> bool:
    return run.status == "finished" and bool(run.answers)


def _table(run: Run) -> dict[str, Row]:
    return {str(row["prompt_id"]): row for row in run.answers}


def _pairs_on(
    prompt: str, seeds: list[int], methods: list[str], tables: dict[str, dict[int, dict[str, Row]]]
) -> Iterator[AnswerPair]:
    for seed in seeds:
        rows = {method: row for method in methods if (row := tables[method].get(seed, {}).get(prompt)) is not None}
        for baseline, treatment in combinations([method for method in methods if method in rows], 2):
            one, two = rows[treatment], rows[baseline]
            yield AnswerPair(
                treatment,
                baseline,
                seed,
                prompt,
                _text(one["prompt"]),
                _text(one.get("reference")),
                (_text(one["response"]), _text(two["response"])),
            )


def _text(value: object) -> str:
    """The value as valid UTF-8 text; lone surrogates become question marks."""
    return "" if value is None else str(value).encode("utf-8", "replace").decode()
