"""Agreement of the judge with human labels, and a score corrected by them (prediction-powered inference)."""

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
    """Human labels of judged answer pairs: their number, the corrected score, agreement and Cohen's kappa."""

    labels: int
    score: Estimate
    agreement: float | None
    kappa: float | None


def load_labels(path: Path) -> dict[Label, str]:
    """Load the winner by prompt, seed and methods from a JSONL file. Raises UserError that names the invalid line."""
    if not path.is_file():
        raise UserError(f"judge.human_labels={path}: file not found.")
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
        raise UserError(f"{where}: expected an object with the keys {', '.join(KEYS)}.")
    methods = row["methods"]
    if not isinstance(methods, list) or len(set(methods)) != 2 or row["winner"] not in [*methods, "tie"]:
        raise UserError(f"{where}: expected two methods, and a winner that is one of them or tie.")
    return row


def compute_agreement(labels: Mapping[Label, str], pairs: Sequence[AnswerPair], scores: np.ndarray) -> HumanAgreement:
    """Compare the judge's verdicts on two methods with human labels. `scores` [n]: 1, 1/2 or 0 for the treatment.

    The corrected score averages within prompts first, because rows of one prompt are not independent.
    """
    human = np.full(len(pairs), np.nan)
    for i, pair in enumerate(pairs):
        winner = labels.get((pair.prompt_id, pair.seed, frozenset((pair.treatment, pair.baseline))))
        if winner is not None:
            human[i] = 0.5 if winner == "tie" else float(winner == pair.treatment)
    known = ~np.isnan(human)
    prompts = np.unique([pair.prompt_id for pair in pairs], return_inverse=True)[1] if pairs else np.zeros(0, int)
    labelled = np.isin(prompts, prompts[known])
    agreement, kappa = winrate.agreement_and_kappa(scores[known], human[known])
    score = winrate.prediction_powered_share(
        _means(scores[known], prompts[known]),
        _means(human[known], prompts[known]),
        _means(scores[~labelled], prompts[~labelled]),
    )
    return HumanAgreement(labels=int(known.sum()), score=score, agreement=agreement, kappa=kappa)


def _means(values: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """Mean of the values of each prompt [prompts]."""
    _, index, sizes = np.unique(prompts, return_inverse=True, return_counts=True)
    return np.bincount(index, weights=values) / sizes
