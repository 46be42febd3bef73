"""The judgement of a study: every pair of methods tallied, with a second judge and people where there are any."""

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
from .tally import Tally, Trials, ranking, shares, strict, tally
from .trial import INVALID, UNJUDGED

Where = tuple[str, str, int, str]


@dataclass(frozen=True, kw_only=True)
class SecondOpinion:
    """What another judge said of the same pairs, and how far the two agree."""

    tally: Tally
    agreement: float | None
    kappa: float | None


@dataclass(frozen=True, kw_only=True)
class Match:
    """Two methods, judged, and what the first judge took for it."""

    tally: Tally
    calls: int
    dollars: float
    ranked: Estimate | None
    second: SecondOpinion | None
    people: HumanAgreement | None


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What one judge took: calls, dollars, the models that answered, and when the model leaves."""

    judge: Judge
    calls: int
    dollars: float
    models: tuple[str, ...]
    shutdown_date: str | None
    stopped: str | None


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """All that was judged; `reason` says why there is nothing.

    `said`: WIN, TIE, LOSS or INVALID by treatment, baseline, seed and prompt.
    """

    judge: Judge
    matches: tuple[Match, ...] = ()
    bills: tuple[Bill, ...] = ()
    prompts: int = 0
    available: int = 0
    unpaired: int = 0
    relatives: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()
    said: dict[Where, int] = field(default_factory=dict)
    reason: str | None = None

    @property
    def dollars(self) -> float:
        """Of all judges together."""
        return sum(bill.dollars for bill in self.bills)

    @property
    def stopped(self) -> str | None:
        """Why not everything was judged."""
        return next((bill.stopped for bill in self.bills if bill.stopped), None)


@dataclass(frozen=True)
class Bench:
    """Where judges sit: the cache, somebody to talk to, and today's date."""

    cache: Cache
    log: Log
    today: date = field(default_factory=lambda: datetime.now(UTC).date())

    def hear(self, judge: Judge, pairs: Sequence[AnswerPair]) -> Verdicts:
        """Every verdict of one judge."""

        def check(told: str | None) -> None:
            model_retirement.check_not_retired(judge, told, self.today)

        return Session(judge, pairs, self.cache, self.log).run(check)


def judge_study(study: Study, methods: list[str], panel: Panel, log: Log) -> Judgement:
    """Let the judges compare every pair of methods; `methods` in the order of the report, the baseline first.

    Raises UserError where nothing could be judged and the remedy is known: a missing key, a model that has left.
    """
    pairing = make_answer_pairs(study, methods, panel.judge.max_prompts)
    if not pairing.pairs:
        return Judgement(judge=panel.judge, reason="no seed has an eval.jsonl from two methods")
    labels = load_labels(Path(panel.judge.human_labels)) if panel.judge.human_labels else None
    with open_cache(study.output_dir) as cache:
        bench = Bench(cache, log)
        heard = [(judge, bench.hear(judge, pairing.pairs)) for judge in (panel.judge, panel.second) if judge]
    leaving = [model_retirement.format_warning(judge, verdicts.shutdown_date, bench.today) for judge, verdicts in heard]
    return Judgement(
        judge=panel.judge,
        matches=tuple(_matches(pairing, methods, [verdicts for _, verdicts in heard], labels)),
        bills=tuple(_bill(judge, verdicts) for judge, verdicts in heard),
        prompts=pairing.prompts,
        available=pairing.available,
        unpaired=pairing.unpaired,
        relatives=tuple(relatives(study, panel.judge)),
        leaving=tuple(text for text in leaving if text),
        said=_said(pairing.pairs, heard[0][1]),
    )


def _said(pairs: Sequence[AnswerPair], verdicts: Verdicts) -> dict[Where, int]:
    results = strict(verdicts.games).tolist()
    return {
        (pair.treatment, pair.baseline, pair.seed, pair.prompt_id): result
        for pair, result in zip(pairs, results, strict=True)
        if result != UNJUDGED
    }


def _bill(judge: Judge, verdicts: Verdicts) -> Bill:
    return Bill(
        judge=judge,
        calls=int(verdicts.calls.sum()),
        dollars=float(verdicts.dollars.sum()),
        models=verdicts.models,
        shutdown_date=verdicts.shutdown_date,
        stopped=verdicts.stopped,
    )


def relatives(study: Study, judge: Judge) -> list[str]:
    """Policies of the judge's own family."""
    names = {str((run.config.get("model") or {}).get("name") or run.model) for run in study.runs}
    return sorted(name for name in names if any(word.lower() in name.lower() for word in judge.family))


def _matches(
    pairing: AnswerPairs, methods: list[str], heard: list[Verdicts], labels: dict[Label, str] | None
) -> list[Match]:
    places = _places(pairing.pairs)
    names = [(later, earlier) for earlier, later in combinations(methods, 2) if (later, earlier) in places]
    prompts = np.unique([pair.prompt_id for pair in pairing.pairs], return_inverse=True)[1]
    played = [[_games(pairing.pairs, prompts, places[name], name, verdicts) for name in names] for verdicts in heard]
    ranked = ranking(played[0], [method for method in methods if any(method in name for name in names)])
    return [
        Match(
            tally=tally(games),
            calls=int(heard[0].calls[places[name]].sum()),
            dollars=float(heard[0].dollars[places[name]].sum()),
            ranked=ranked.get(name),
            second=_second(games, played[1][i]) if len(played) > 1 else None,
            people=None if labels is None else _people(labels, pairing.pairs, places[name], games),
        )
        for i, (name, games) in enumerate(zip(names, played[0], strict=True))
    ]


def _places(pairs: Sequence[AnswerPair]) -> dict[tuple[str, str], np.ndarray]:
    """Where in the list the pairs of each two methods stand."""
    found: dict[tuple[str, str], list[int]] = {}
    for i, pair in enumerate(pairs):
        found.setdefault((pair.treatment, pair.baseline), []).append(i)
    return {name: np.array(rows) for name, rows in found.items()}


def _games(
    pairs: Sequence[AnswerPair], prompts: np.ndarray, rows: np.ndarray, name: tuple[str, str], verdicts: Verdicts
) -> Trials:
    chosen = [pairs[i] for i in rows]
    return Trials(
        treatment=name[0],
        baseline=name[1],
        games=verdicts.games[rows],
        prompts=prompts[rows],
        lengths=np.array([[len(answer) for answer in pair.answers] for pair in chosen]),
        identical=np.array([pair.identical for pair in chosen]),
        cut=verdicts.cut[rows],
        troubles=tuple(verdicts.troubles[i] for i in rows),
    )


def _second(games: Trials, others: Trials) -> SecondOpinion:
    one, other = strict(games.games), strict(others.games)
    both = ~np.isin(one, (INVALID, UNJUDGED)) & ~np.isin(other, (INVALID, UNJUDGED)) & ~games.identical
    agreement, kappa = winrate.kappa(one[both], other[both])
    return SecondOpinion(tally=tally(others), agreement=agreement, kappa=kappa)


def _people(labels: dict[Label, str], pairs: Sequence[AnswerPair], rows: np.ndarray, games: Trials) -> HumanAgreement:
    results = strict(games.games)
    valid = ~np.isin(results, (INVALID, UNJUDGED))
    return compute_agreement(labels, [pairs[i] for i in rows[valid]], shares(results[valid]))
