"""Which answers meet: the same prompt, the same seed, two methods; a fixed sample of the prompts."""

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
        """The same answer twice: a tie that nobody need be asked about."""
        return self.answers[0] == self.answers[1]


@dataclass(frozen=True, kw_only=True)
class AnswerPairs:
    """All pairs of a study in the order in which they are judged, and how many prompts there were to choose from."""

    pairs: tuple[AnswerPair, ...]
    prompts: int
    available: int
    unpaired: int


def place(prompt_id: str) -> str:
    """A prompt's place in the order of judging: by hash, so that any beginning of it is a fair sample."""
    return sha256(f"judge/{prompt_id}".encode()).hexdigest()


def make_answer_pairs(study: Study, methods: list[str], most: int) -> AnswerPairs:
    """Every pair of methods at every seed that both finished, on at most `most` prompts.

    `methods` in the order of the report: the earlier one of a pair is its baseline. Prompt by prompt, so that a stop
    for lack of money leaves whole prompts. `unpaired` counts answers to chosen prompts that have no counterpart.
    """
    tables = {
        method: {run.seed: _table(run) for run in study.runs_of(method) if _has_answers(run)} for method in methods
    }
    known = {prompt for runs in tables.values() for table in runs.values() for prompt in table}
    chosen = sorted(known, key=place)[:most]
    pairs = tuple(pair for prompt in chosen for pair in _pairs_on(prompt, study.seeds, methods, tables))
    met = {(method, pair.seed, pair.prompt_id) for pair in pairs for method in (pair.treatment, pair.baseline)}
    there = sum(prompt in table for runs in tables.values() for table in runs.values() for prompt in chosen)
    return AnswerPairs(pairs=pairs, prompts=len(chosen), available=len(known), unpaired=there - len(met))


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
    """Text that can be sent: lone surrogates, which no encoding has, become question marks."""
    return "" if value is None else str(value).encode("utf-8", "replace").decode()
