"""Judges a study: tallies of every two methods, with agreement of a second judge and of human labels if configured."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import combinations
from pathlib import Path

import numpy as np

from alignbench.core.judge_settings import Judge

from ..statistics import Estimate
from ..study.load import Study
from . import model_retirement, winrate
from .answer_pairs import AnswerPair, AnswerPairs, make_answer_pairs
from .cache import Cache, open_cache
from .human_agreement import HumanAgreement, Label, compute_agreement, load_labels
from .panel import Panel
from .session import Log, Session, Verdicts
from .tally import Tally, Trials, combine_orders, compute_tally, fit_ranking, to_scores
from .trial import INVALID, UNJUDGED

ResultKey = tuple[str, str, int, str]


@dataclass(frozen=True, kw_only=True)
class SecondJudge:
    """Tally of the second judge on the same answer pairs, and its agreement with the first judge."""

    tally: Tally
    agreement: float | None
    kappa: float | None


@dataclass(frozen=True, kw_only=True)
class MethodPairResult:
    """Result of judging two methods; `calls` and `dollars` are those of the first judge."""

    tally: Tally
    calls: int
    dollars: float
    bradley_terry: Estimate | None
    second: SecondJudge | None
    human: HumanAgreement | None


@dataclass(frozen=True, kw_only=True)
class JudgeUsage:
    """Usage of one judge: calls, cost, models that replied, shutdown date, and why it stopped early (or None)."""

    judge: Judge
    calls: int
    dollars: float
    models: tuple[str, ...]
    shutdown_date: str | None
    stopped: str | None


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The judgement of a study; if nothing was judged, `reason` says why.

    `prompts`: judged prompts; `available`: held-out prompts to sample from; `unpaired`: answers without a counterpart;
    `same_family`: policies of the judge's own model family; `results`: WIN, TIE, LOSS or INVALID by treatment,
    baseline, seed and prompt.
    """

    judge: Judge
    matches: tuple[MethodPairResult, ...] = ()
    usage: tuple[JudgeUsage, ...] = ()
    prompts: int = 0
    available: int = 0
    unpaired: int = 0
    same_family: tuple[str, ...] = ()
    retirement_warnings: tuple[str, ...] = ()
    results: dict[ResultKey, int] = field(default_factory=dict)
    reason: str | None = None

    @property
    def dollars(self) -> float:
        """Total cost of all judges in dollars."""
        return sum(usage.dollars for usage in self.usage)

    @property
    def stopped(self) -> str | None:
        """Why judging stopped early; None if everything was judged."""
        return next((usage.stopped for usage in self.usage if usage.stopped), None)


@dataclass(frozen=True)
class JudgingContext:
    """What every judge of a study shares: the cache, the progress log and today's date."""

    cache: Cache
    log: Log
    today: date = field(default_factory=lambda: datetime.now(UTC).date())

    def run(self, judge: Judge, pairs: Sequence[AnswerPair]) -> Verdicts:
        """All verdicts of one judge."""

        def check(date: str | None) -> None:
            model_retirement.check_not_retired(judge, date, self.today)

        return Session(judge, pairs, self.cache, self.log).run(check)


def judge_study(study: Study, methods: list[str], panel: Panel, log: Log) -> Judgement:
    """Judge every two methods; `methods` in the order of the report, the baseline first.

    Raises UserError if the judge cannot be used, for example without an API key or after its model was shut down.
    """
    sample = make_answer_pairs(study, methods, panel.judge.max_prompts)
    if not sample.pairs:
        return Judgement(judge=panel.judge, reason="no seed has an eval.jsonl from two methods")
    labels = load_labels(Path(panel.judge.human_labels)) if panel.judge.human_labels else None
    with open_cache(study.output_dir) as cache:
        context = JudgingContext(cache, log)
        judged = [(judge, context.run(judge, sample.pairs)) for judge in (panel.judge, panel.second) if judge]
    retirement = [
        model_retirement.format_warning(judge, verdicts.shutdown_date, context.today) for judge, verdicts in judged
    ]
    return Judgement(
        judge=panel.judge,
        matches=tuple(_matches(sample, methods, [verdicts for _, verdicts in judged], labels)),
        usage=tuple(_usage(judge, verdicts) for judge, verdicts in judged),
        prompts=sample.prompts,
        available=sample.available,
        unpaired=sample.unpaired,
        same_family=tuple(find_same_family(study, panel.judge)),
        retirement_warnings=tuple(text for text in retirement if text),
        results=_results(sample.pairs, judged[0][1]),
    )


def _results(pairs: Sequence[AnswerPair], verdicts: Verdicts) -> dict[ResultKey, int]:
    results = combine_orders(verdicts.trials).tolist()
    return {
        (pair.treatment, pair.baseline, pair.seed, pair.prompt_id): result
        for pair, result in zip(pairs, results, strict=True)
        if result != UNJUDGED
    }


def _usage(judge: Judge, verdicts: Verdicts) -> JudgeUsage:
    return JudgeUsage(
        judge=judge,
        calls=int(verdicts.calls.sum()),
        dollars=float(verdicts.dollars.sum()),
        models=verdicts.models,
        shutdown_date=verdicts.shutdown_date,
        stopped=verdicts.stopped,
    )


def find_same_family(study: Study, judge: Judge) -> list[str]:
    """Names of policies that belong to the judge's model family."""
    names = {str((run.config.get("model") or {}).get("name") or run.model) for run in study.runs}
    return sorted(name for name in names if any(word.lower() in name.lower() for word in judge.family))


def _matches(
    sample: AnswerPairs, methods: list[str], verdicts: list[Verdicts], labels: dict[Label, str] | None
) -> list[MethodPairResult]:
    rows = _rows_by_methods(sample.pairs)
    names = [(later, earlier) for earlier, later in combinations(methods, 2) if (later, earlier) in rows]
    prompts = np.unique([pair.prompt_id for pair in sample.pairs], return_inverse=True)[1]
    trials = [[_trials(sample.pairs, prompts, rows[name], name, judge) for name in names] for judge in verdicts]
    ranking = fit_ranking(trials[0], [method for method in methods if any(method in name for name in names)])
    return [
        MethodPairResult(
            tally=compute_tally(first),
            calls=int(verdicts[0].calls[rows[name]].sum()),
            dollars=float(verdicts[0].dollars[rows[name]].sum()),
            bradley_terry=ranking.get(name),
            second=_second(first, trials[1][i]) if len(trials) > 1 else None,
            human=None if labels is None else _human(labels, sample.pairs, rows[name], first),
        )
        for i, (name, first) in enumerate(zip(names, trials[0], strict=True))
    ]


def _rows_by_methods(pairs: Sequence[AnswerPair]) -> dict[tuple[str, str], np.ndarray]:
    """Row indices of the answer pairs of each two methods."""
    found: dict[tuple[str, str], list[int]] = {}
    for i, pair in enumerate(pairs):
        found.setdefault((pair.treatment, pair.baseline), []).append(i)
    return {name: np.array(rows) for name, rows in found.items()}


def _trials(
    pairs: Sequence[AnswerPair], prompts: np.ndarray, rows: np.ndarray, name: tuple[str, str], verdicts: Verdicts
) -> Trials:
    chosen = [pairs[i] for i in rows]
    return Trials(
        treatment=name[0],
        baseline=name[1],
        results=verdicts.trials[rows],
        prompts=prompts[rows],
        lengths=np.array([[len(answer) for answer in pair.answers] for pair in chosen]),
        identical=np.array([pair.identical for pair in chosen]),
        truncated=verdicts.truncated[rows],
        failures=tuple(verdicts.failures[i] for i in rows),
    )


def _second(first: Trials, second: Trials) -> SecondJudge:
    one, other = combine_orders(first.results), combine_orders(second.results)
    both = ~np.isin(one, (INVALID, UNJUDGED)) & ~np.isin(other, (INVALID, UNJUDGED)) & ~first.identical
    agreement, kappa = winrate.agreement_and_kappa(one[both], other[both])
    return SecondJudge(tally=compute_tally(second), agreement=agreement, kappa=kappa)


def _human(labels: dict[Label, str], pairs: Sequence[AnswerPair], rows: np.ndarray, trials: Trials) -> HumanAgreement:
    results = combine_orders(trials.results)
    valid = ~np.isin(results, (INVALID, UNJUDGED))
    return compute_agreement(labels, [pairs[i] for i in rows[valid]], to_scores(results[valid]))
