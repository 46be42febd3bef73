"""Everything a report says, worked out once; page, text, JSON and terminal are made from this."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from alignbench.core import record
from alignbench.core.errors import UserError

from . import statistics
from .cautions import Caution, cautions
from .compare import Comparison, compare, compare_all
from .fairness import Fairness, judge_fairness
from .learning import token_unit
from .load import Run, Study, load_study
from .metrics import Metric, listed, method_label, metric_named
from .samples import Samples, pick_samples
from .statistics import Estimate
from .verdict import State, Verdict, decide, pair_state

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked on the command line; None leaves the choice to the runs' config."""

    study: str
    output_dir: Path = Path("outputs")
    baseline: str | None = None
    tracking_uri: str | None = None
    metric: str | None = None
    margin: float | None = None


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What was declared before the runs: config section `analysis`, overridden by the command line."""

    metric: str
    baseline: str
    margin: float | None
    allow: tuple[str, ...]
    price_per_hour: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Arm:
    """One method: its seeds, its mean on the headline metric, and its place in palette and legend."""

    name: str
    label: str
    place: int
    runs: tuple[Run, ...]
    scores: tuple[float, ...]
    level: Estimate
    start: float | None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One price paid: the mean of each method, and its ratio to the baseline."""

    key: str
    label: str
    divisor: float
    values: dict[str, tuple[float, ...]]
    ratios: dict[str, Estimate]
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class WhatIf:
    """The difference if the seeds without a number had ended in a certain way."""

    pair: str
    treatment_of_seed: str
    difference: Estimate


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The study, compared."""

    study: Study
    declared: Declared
    metric: Metric
    arms: tuple[Arm, ...]
    pairs: tuple[Comparison, ...]
    exploratory: tuple[Comparison, ...]
    costs: tuple[Cost, ...]
    fairness: Fairness
    unfinished: tuple[str, ...]
    troubled: frozenset[str]
    what_if: tuple[WhatIf, ...]
    verdict: Verdict
    cautions: tuple[Caution, ...]
    samples: Samples
    task: str
    prompts: int | None
    generated: str

    @property
    def title(self) -> str:
        """PPO vs GRPO on arithmetic."""
        labels = [arm.label for arm in self.arms]
        names = (
            " vs ".join(labels)
            if len(labels) < 3
            else listed(labels)
            if len(labels) < 6
            else (f"{len(labels)} methods")
        )
        return f"{names} on {self.task}"

    @property
    def baseline(self) -> Arm:
        """The method that the others are compared with."""
        return self.arm(self.declared.baseline)

    def arm(self, name: str) -> Arm:
        """The arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)

    def against_baseline(self) -> list[Comparison]:
        """The headline comparisons of each other method with the baseline."""
        return [pair for pair in self.pairs if pair.baseline == self.declared.baseline]

    def state_of(self, pair: Comparison) -> State:
        """The verdict on one pair, which a missing seed or a failed fairness check takes away."""
        if self.fairness.violations:
            return "not_comparable"
        return "incomplete" if {pair.treatment, pair.baseline} & self.troubled else pair_state(pair)


def find(options: Options) -> Findings:
    """Load a study and work everything out. Raises UserError for an unknown study, metric or baseline."""
    study = load_study(options.study, options.output_dir, options.tracking_uri)
    declared = declare(study, options)
    metric = metric_named(declared.metric)
    arms = tuple(_arm(study, name, place, metric) for place, name in enumerate(study.arms))
    order = sorted(study.arms, key=lambda name: name != declared.baseline)
    scores = {arm.name: arm.scores for arm in arms}
    pairs = tuple(compare_all(metric, scores, order, declared.margin))
    exploratory = tuple(explore(study, declared, order, max(1, len(pairs))))
    fairness = judge_fairness(study, declared.allow)
    judged = [(run, _unusable(run, metric)) for arm in arms for run in arm.runs]
    problems = tuple(text for _, text in judged if text)
    troubled = frozenset(run.arm for run, text in judged if text)
    verdict = decide(
        metric=metric,
        arms=study.arms,
        pairs=pairs,
        level=arms[0].level,
        planned=len(judged),
        unfinished=problems,
        violations=fairness.violations,
    )
    return Findings(
        study=study,
        declared=declared,
        metric=metric,
        arms=arms,
        pairs=pairs,
        exploratory=exploratory,
        costs=tuple(costs(study, declared)),
        fairness=fairness,
        unfinished=problems,
        troubled=troubled,
        what_if=tuple(what_if(arms, metric, order, troubled)),
        verdict=verdict,
        cautions=tuple(cautions(study, metric, arms, pairs, exploratory, fairness, problems, _prompts(study))),
        samples=pick_samples(study),
        task=_task(study),
        prompts=_prompts(study),
        generated=max([run.finished or run.started or "" for run in study.runs]) or "n/a",
    )


def declare(study: Study, options: Options) -> Declared:
    """Settle what decides: command line first, then the runs' config, then the defaults."""
    sections = [run.config["analysis"] for run in study.runs if run.config.get("analysis")]
    section: dict[str, Any] = sections[0] if sections else {}
    arms = study.arms
    baseline = options.baseline or section.get("baseline") or ("ppo" if "ppo" in arms else min(arms))
    if baseline not in arms:
        if options.baseline:
            raise UserError(f"baseline={baseline}: no method of study {study.name}; it has {', '.join(arms)}.")
        baseline = min(arms)
    margin = options.margin if options.margin is not None else section.get("margin")
    return Declared(
        metric=_settle_metric(study, options.metric or section.get("metric") or record.FINAL_ACCURACY),
        baseline=baseline,
        margin=None if margin is None else float(margin),
        allow=tuple(section.get("allow") or ()),
        price_per_hour=section.get("price_per_hour"),
    )


def _settle_metric(study: Study, name: str) -> str:
    finished = [run for run in study.runs if run.status == "finished"]
    if finished and not any(name in run.metrics for run in finished):
        there = sorted({metric for run in finished for metric in run.metrics if metric.startswith("final/")})
        raise UserError(
            f"metric={name}: no finished run of study {study.name} has it. "
            f"Choose one with metric=NAME or analysis.metric; there are {', '.join(there) or 'none'}."
        )
    return name


def _arm(study: Study, name: str, place: int, metric: Metric) -> Arm:
    runs = study.of(name)
    scores = tuple(run.metrics[metric.name] for run in runs if run.status == "finished" and metric.name in run.metrics)
    starts = [run.metrics[start] for run in runs if (start := start_name(metric.name)) in run.metrics]
    return Arm(
        name=name,
        label=method_label(name),
        place=place,
        runs=tuple(runs),
        scores=scores,
        level=statistics.mean_interval(scores),
        start=statistics.mean(starts),
    )


def start_name(metric: str) -> str:
    """The metric measured before RL: final/accuracy -> final/start_accuracy."""
    return metric.replace("final/", "final/start_", 1)


def _unusable(run: Run, metric: Metric) -> str | None:
    """Why a run gives no number to compare, in one sentence."""
    who = f"{method_label(run.arm)} seed {run.seed}"
    if run.status == "missing":
        return f"{who} was planned and never started."
    if run.status == "running":
        return f"{who} has not finished yet (or was killed without a word)."
    if run.status != "finished":
        why = f": {run.reason.rstrip('.')}" if run.reason else ""
        return f"{who} {'failed' if run.status == 'failed' else 'was interrupted'}{why}."
    value = run.metrics.get(metric.name)
    if value is None:
        return f"{who} finished without {metric.label} ({metric.name})."
    return None if isfinite(value) else f"{who} finished with a {metric.label} that is not a finite number."


def explore(study: Study, declared: Declared, order: Sequence[str], family: int) -> list[Comparison]:
    """The other final metrics against the baseline, at the level of the headline; they decide nothing."""
    found = []
    for name in secondary_metrics(study, declared.metric):
        scores = {
            arm: [run.metrics[name] for run in study.of(arm) if name in run.metrics and run.status == "finished"]
            for arm in order
        }
        if all(scores.values()):
            metric = metric_named(name)
            found += [compare(metric, scores, arm, order[0], family=family) for arm in order[1:]]
    return found


def secondary_metrics(study: Study, headline: str) -> list[str]:
    """Final metrics beside the headline, known ones first."""
    there = {name for run in study.runs for name in run.metrics if name.startswith("final/")}
    there = {name for name in there if not name.startswith("final/start_") and name != headline}
    known = [name for name in record.FINAL if name in there]
    return [
        *sorted(name for name in there if name.startswith(record.PASS_AT)),
        *known,
        *sorted(name for name in there if name not in known and not name.startswith(record.PASS_AT)),
    ]


def costs(study: Study, declared: Declared) -> list[Cost]:
    """Tokens, time, memory and price of the finished runs."""
    price = declared.price_per_hour
    divisor, unit = token_unit([run.ledger.get("tokens", 0.0) for run in study.runs])
    rows = [
        _cost(study, declared, "tokens", f"Generated tokens ({unit})", record.TOKENS, divisor),
        _cost(study, declared, "seconds", "Wall-clock time (s)", record.SECONDS, 1.0),
        _cost(study, declared, "peak_memory_bytes", "Peak memory (GiB)", record.PEAK_MEMORY, GIB),
    ]
    if price is None:
        reason = "analysis.price_per_hour is not declared"
        return [*rows, Cost(key="price", label="Price", divisor=1, values={}, ratios={}, reason=reason)]
    label = f"Price (at ${price:,.2f} per device-hour)"
    time = rows[1]
    return [
        *rows,
        Cost(
            key="price", label=label, divisor=3600 / price, values=time.values, ratios=time.ratios, reason=time.reason
        ),
    ]


def _cost(study: Study, declared: Declared, key: str, label: str, metric: str, divisor: float) -> Cost:
    values = {arm: tuple(_spent(study.of(arm), key, metric)) for arm in study.arms}
    ratios = {
        arm: statistics.ratio(values[arm], values[declared.baseline]) for arm in study.arms if arm != declared.baseline
    }
    reason = None if all(values.values()) else "not measured by every method"
    return Cost(key=key, label=label, divisor=divisor, values=values, ratios=ratios, reason=reason)


def _spent(runs: Sequence[Run], key: str, metric: str) -> list[float]:
    spent = [run.ledger.get(key, run.metrics.get(metric)) for run in runs if run.status == "finished"]
    return [float(number) for number in spent if number is not None]


def what_if(arms: Sequence[Arm], metric: Metric, order: Sequence[str], troubled: frozenset[str]) -> list[WhatIf]:
    """How far the seeds without a number could move the answer; a view on robustness, not a result."""
    fates = ("Left out (hides the failure)", "Counted at its last validation", "Counted at the SFT start")
    by_name = {arm.name: arm for arm in arms}
    rows = []
    for name in order[1:]:
        if {name, order[0]} & troubled:
            for fate in fates:
                x, y = (_with_fate(by_name[who], metric, fate) for who in (name, order[0]))
                pair = f"{by_name[name].label} \N{MINUS SIGN} {by_name[order[0]].label}"
                if x is not None and y is not None:
                    difference = statistics.welch(x, y).difference
                    rows.append(WhatIf(pair=pair, treatment_of_seed=fate, difference=difference))
    return rows


def _with_fate(arm: Arm, metric: Metric, fate: str) -> list[float] | None:
    scores = []
    for run in arm.runs:
        if _unusable(run, metric) is None:
            scores.append(run.metrics[metric.name])
        elif not fate.startswith("Left out"):
            guess = arm.start if "start" in fate else last_validated(run, metric)
            if guess is None:
                return None
            scores.append(guess)
    return scores


def last_validated(run: Run, metric: Metric) -> float | None:
    """The last finite value on validation prompts of a run that has no final number."""
    curve = run.curves.get(metric.name.replace("final/", "eval/", 1))
    finite = [value for value in curve.values if isfinite(value)] if curve else []
    return finite[-1] if finite else None


def _prompts(study: Study) -> int | None:
    sizes = [len(run.answers) for run in study.runs if run.answers]
    return max(sizes) if sizes else None


def _task(study: Study) -> str:
    names = {(run.manifest.get("data") or {}).get("name") for run in study.runs if run.manifest}
    return listed(sorted(name for name in names if name)) if names - {None} else study.name
