"""Accuracy and calibration of the reward model on held-out preference pairs."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ...findings import Findings
from ...plots.charts import Chart
from ...plots.reward_model import accuracy_charts
from ...statistics import Estimate
from ...validity.reward_model import Bin, RewardModel
from .. import tables
from ..json_values import estimate_data, finite
from ..section import Block, Figures, Section, Table, Text


def data(findings: Findings) -> dict[str, Any]:
    """Every reward model of the study; a fair study with a learned reward has one."""
    return {"reward_models": [_reward_model(model) for model in findings.reward_models]}


def _reward_model(model: RewardModel) -> dict[str, Any]:
    return {
        "key": model.key,
        "runs": list(model.runs),
        "accuracy": None if model.accuracy is None else estimate_data(model.accuracy),
        "pairs": model.pairs,
        "by_margin": [_bin(row) for row in model.by_margin],
        "by_length": [_bin(row) for row in model.by_length],
        "gates": [{**asdict(gate), "passed": gate.passed} for gate in model.gates],
        **{name: finite(value) for name, value in model.calibration.items()},
    }


def _bin(row: Bin) -> dict[str, Any]:
    return {
        "from": finite(row.low),
        "to": finite(row.high),
        "accuracy": estimate_data(row.accuracy),
        "pairs": row.pairs,
    }


def caption(model: RewardModel) -> str:
    """Accuracy on held-out pairs, overall and by margin, and calibration error."""
    parts = []
    if model.accuracy:
        parts.append(f"It ranks {share_text(model.accuracy)} of {model.pairs:,} held-out pairs as labelled.")
    if len(model.by_margin) > 1:
        low, high = model.by_margin[0], model.by_margin[-1]
        parts.append(
            f"By margin: {share_text(low.accuracy)} at {low.label}, {share_text(high.accuracy)} at {high.label}."
        )
    ece, temperature = model.calibration["ece"], model.calibration["temperature"]
    if ece is not None:
        scaled = "" if temperature in (None, 1.0) else f", after dividing the scores by {temperature:.2f}"
        parts.append(f"Expected calibration error: {100 * ece:.1f} points{scaled}.")
    return " ".join(parts) or "n/a: it was not evaluated on held-out pairs."


def gates_text(model: RewardModel) -> str:
    """Gates on validation pairs: at least 70.0% accuracy, reached 92.1%; ..."""
    parts = [
        f"{'at least' if gate.least else 'at most'} {_share(gate.limit, gate.least)} {gate.name}, "
        f"{'reached' if gate.passed else 'missed with'} {_share(gate.measured, gate.least)}"
        for gate in model.gates
    ]
    return f"Gates on validation pairs: {'; '.join(parts)}." if parts else ""


def _share(value: float, percent: bool) -> str:
    return f"{100 * value:.1f}%" if percent else f"{value:.3f}"


def share_text(share: Estimate) -> str:
    """86.8% (85.2 to 88.3)."""
    value, low, high = (100 * (number or 0.0) for number in (share.value, share.low, share.high))
    return f"{value:.1f}% ({low:.1f} to {high:.1f})"


def body(findings: Findings, charts: Sequence[Chart]) -> list[Block]:
    """Captions, charts, tables by margin and by length, gates."""
    models = findings.reward_models
    note = (
        "Dot: share of pairs ranked as labelled. Line: 95% Wilson interval. Dotted: chance level. Gray: all pairs. A "
        "reward model that is accurate only where the chosen answer is longer rewards length."
    )
    return [
        *(Text(text=f"{_name(model, len(models))}{caption(model)}", style="lede") for model in models),
        Figures(charts=charts, missing="n/a: its accuracy was not broken down."),
        *([Text(text=note, style="cap")] if charts else []),
        *(table for model in models for table in _tables(model)),
        Text(text=_frozen(models), style="cap"),
    ]


def _name(model: RewardModel, count: int) -> str:
    return f"`{model.key}` ({', '.join(model.runs)}): " if count > 1 else ""


def _tables(model: RewardModel) -> list[Table]:
    found = []
    if model.by_margin:
        rows = [[*_row(row), share_text(model.accuracy_from_margin(row.low))] for row in model.by_margin]
        columns = ["margin", "pairs", "accuracy (95% CI)", "this margin or more"]
        found.append(Table(label="Accuracy by margin", columns=columns, rows=rows, folded="Values by margin"))
    if model.by_length:
        columns = ["chosen answer is", "pairs", "accuracy (95% CI)"]
        rows = [_row(row) for row in model.by_length]
        found.append(Table(label="Accuracy by length", columns=columns, rows=rows, folded="Values by length"))
    return found


def _row(row: Bin) -> list[str]:
    return [row.label, f"{row.pairs:,}", share_text(row.accuracy)]


def _frozen(models: Sequence[RewardModel]) -> str:
    key = f": `{models[0].key}`" if len(models) == 1 else ""
    return " ".join([f"Frozen for all runs{key}.", *(text for model in models for text in _about(model) if text)])


def _about(model: RewardModel) -> list[str]:
    mean, deviation = model.calibration["mean"], model.calibration["std"]
    if mean is None or deviation is None:
        return [gates_text(model)]
    spread = f"mean {tables.fixed(mean)} and standard deviation {tables.fixed(deviation)}"
    return [gates_text(model), f"Its scores of held-out answers have {spread}."]


SECTION = Section(
    name="rewardmodel",
    label="Reward model",
    title="How good was the reward model?",
    data=data,
    charts=accuracy_charts,
    body=body,
    applies=lambda findings: bool(findings.reward_models),
)
