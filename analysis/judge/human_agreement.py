"""What people preferred, where they were asked: agreement with the judge, and the score corrected by them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignbench.core.errors import UserError
from alignbench.core.json_text import JSONTextError, parse_json

from ..statistics import Estimate
from . import winrate
from .answer_pairs import AnswerPair

Label = tuple[str, int, frozenset[str]]
KEYS = ("prompt_id", "seed", "methods", "winner")


@dataclass(frozen=True, kw_only=True)
class HumanAgreement:
    """Labels that met a judged pair, how far the judge agrees with them, and the score that people would give."""

    labels: int
    score: Estimate
    agreement: float | None
    kappa: float | None


def load_labels(path: Path) -> dict[Label, str]:
    """The winner by prompt, seed and methods, from JSON lines. Raises UserError with the line that is wrong."""
    if not path.is_file():
        raise UserError(f"judge.human_labels={path}: there is no such file.")
    found: dict[Label, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            row = _row(line, f"{path}, line {number}")
            found[str(row["prompt_id"]), int(row["seed"]), frozenset(row["methods"])] = row["winner"]
    return found


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = parse_json(line)
    except JSONTextError as error:
        raise UserError(f"{where}: not valid JSON ({error.reason}{error.position}).") from error
    if not isinstance(row, dict) or not set(KEYS) <= row.keys():
        raise UserError(f"{where}: an object with {', '.join(KEYS)} is expected.")
    methods = row["methods"]
    if not isinstance(methods, list) or len(set(methods)) != 2 or row["winner"] not in [*methods, "tie"]:
        raise UserError(f"{where}: methods are two names, and winner is one of them or tie.")
    return row


def compute_agreement(labels: Mapping[Label, str], pairs: Sequence[AnswerPair], scores: np.ndarray) -> HumanAgreement:
    """Set judged pairs of two methods against people. `scores` [n]: the judge's 1, 1/2, 0 for the treatment.

    One number for each prompt, for rows of one prompt are not independent.
    """
    said = np.full(len(pairs), np.nan)
    for i, pair in enumerate(pairs):
        winner = labels.get((pair.prompt_id, pair.seed, frozenset((pair.treatment, pair.baseline))))
        if winner is not None:
            said[i] = 0.5 if winner == "tie" else float(winner == pair.treatment)
    known = ~np.isnan(said)
    prompts = np.unique([pair.prompt_id for pair in pairs], return_inverse=True)[1] if pairs else np.zeros(0, int)
    labelled = np.isin(prompts, prompts[known])
    agreement, kappa = winrate.kappa(scores[known], said[known])
    score = winrate.prediction_powered_share(
        _means(scores[known], prompts[known]),
        _means(said[known], prompts[known]),
        _means(scores[~labelled], prompts[~labelled]),
    )
    return HumanAgreement(labels=int(known.sum()), score=score, agreement=agreement, kappa=kappa)


def _means(values: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """The mean of each prompt."""
    _, place, sizes = np.unique(prompts, return_inverse=True, return_counts=True)
    return np.bincount(place, weights=values) / sizes
