"""Computes everything that a report contains; the page, text, JSON and terminal are written from this."""

from collections.abc import Sequence
from dataclasses import dataclass

from alignbench.core import metric_names

from .comparison.compare import Comparison, compare, compare_methods
from .comparison.costs import Cost, compute_costs
from .comparison.paired_design import PairedDesign, resolve_pairing
from .comparison.sensitivity import Sensitivity, compute_sensitivity
from .comparison.stage_costs import StageCost, compute_stage_costs
from .comparison.strata import PREFIX, Stratum, compute_strata
from .comparison.variance import VarianceByPrompt, compute_variance_by_prompt
from .comparison.verdict import State, Verdict, comparison_state, decide
from .judge.judgement import Judgement
from .judge.resolve import resolve_judgement
from .judge.session import Log
from .judge.text import collect_judge_warnings
from .study.answers import AnswerChange, compute_answer_changes, final_values
from .study.load import Study, load_study
from .study.methods import Method, explain_missing_score, summarize_method
from .study.metrics import Metric, listed, metric_named
from .study.options import Declared, Options, declare
from .study.samples import Samples, select_samples
from .validity.fairness import Fairness, check_fairness
from .validity.overoptimization import OverOptimization, find_overoptimization
from .validity.reward_hacking import collect_reward_hacking_warnings
from .validity.reward_model import RewardModel, summarize_reward_models
from .validity.scope import pairing_warnings, prompt_warnings
from .validity.warnings import ReportWarning, collect_warnings


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The results of comparing the methods of a study."""

    study: Study
    declared: Declared
    metric: Metric
    methods: tuple[Method, ...]
    pairs: tuple[Comparison, ...]
    exploratory: tuple[Comparison, ...]
    pairing: PairedDesign
    by_prompt: tuple[VarianceByPrompt, ...]
    no_prompts: str | None
    changes: tuple[AnswerChange, ...]
    strata: tuple[Stratum, ...]
    over_optimization: tuple[OverOptimization, ...]
    reward_models: tuple[RewardModel, ...]
    costs: tuple[Cost, ...]
    stage_costs: tuple[StageCost, ...]
    judgement: Judgement | None
    fairness: Fairness
    unfinished: tuple[str, ...]
    troubled: frozenset[str]
    sensitivity: tuple[Sensitivity, ...]
    verdict: Verdict
    warnings: tuple[ReportWarning, ...]
    samples: Samples
    task: str
    prompts: int | None
    generated: str

    @property
    def title(self) -> str:
        """PPO vs GRPO on arithmetic."""
        labels = [method.label for method in self.methods]
        names = (
            " vs ".join(labels)
            if len(labels) < 3
            else listed(labels)
            if len(labels) < 6
            else (f"{len(labels)} methods")
        )
        return f"{names} on {self.task}"

    @property
    def baseline(self) -> Method:
        """The method that the others are compared with."""
        return self.method(self.declared.baseline)

    def method(self, name: str) -> Method:
        """The method of this name."""
        return next(method for method in self.methods if method.name == name)

    def against_baseline(self) -> list[Comparison]:
        """The headline comparisons of each other method with the baseline."""
        return [pair for pair in self.pairs if pair.baseline == self.declared.baseline]

    def state_of(self, pair: Comparison) -> State:
        """The verdict of one comparison; a missing score or a failed fairness check withholds it."""
        if self.fairness.violations:
            return "not_comparable"
        return "incomplete" if {pair.treatment, pair.baseline} & self.troubled else comparison_state(pair)


def find(options: Options, log: Log = lambda text: None) -> Findings:
    """Load a study and compare its methods; `log` receives the progress messages of the judge.

    Raises UserError for an unknown study, metric or baseline, and for a judge that cannot be queried.
    """
    study = load_study(options.study, options.output_dir, options.tracking_uri)
    declared = declare(study, options)
    metric = metric_named(declared.metric)
    methods = tuple(summarize_method(study, name, place, metric) for place, name in enumerate(study.methods))
    order = sorted(study.methods, key=lambda name: name != declared.baseline)
    scores = {method.name: method.scores for method in methods}
    pairing = resolve_pairing(study, declared.pairing)
    pairs = tuple(compare_methods(metric, scores, order, declared.margin, pairing.by_seed))
    exploratory = tuple(explore(study, declared, order, max(1, len(pairs)), pairing.by_seed))
    each, no_prompts = compute_variance_by_prompt(study, metric, pairs)
    fairness = check_fairness(study, declared.allow, declared.price_per_hour)
    judged = [(run, explain_missing_score(run, metric)) for method in methods for run in method.runs]
    problems = tuple(text for _, text in judged if text)
    troubled = frozenset(run.method for run, text in judged if text)
    verdict = decide(
        metric=metric,
        methods=study.methods,
        comparisons=pairs,
        level=methods[0].level,
        planned=len(judged),
        unfinished=problems,
        violations=fairness.violations,
    )
    drifts = find_overoptimization(study, declared.margin if metric.name == "final/gold" else None)
    gamed = collect_reward_hacking_warnings(study, methods, drifts)
    limits = [*pairing_warnings(pairing), *prompt_warnings(() if problems else each)]
    fresh = None if each else _prompts(study)
    judgement = resolve_judgement(study, order, options.judge, log)
    limits += [ReportWarning(*found) for found in (collect_judge_warnings(judgement) if judgement else [])]
    warned = collect_warnings(study, metric, methods, pairs, exploratory, fairness, problems, fresh, [*gamed, *limits])
    return Findings(
        study=study,
        declared=declared,
        metric=metric,
        methods=methods,
        pairs=pairs,
        exploratory=exploratory,
        pairing=pairing,
        by_prompt=each,
        no_prompts=no_prompts,
        changes=compute_answer_changes(study),
        strata=compute_strata(study, declared.baseline),
        over_optimization=drifts,
        reward_models=summarize_reward_models(study),
        costs=tuple(compute_costs(study, declared)),
        stage_costs=compute_stage_costs(study, declared.expected_memory_gb),
        judgement=judgement,
        fairness=fairness,
        unfinished=problems,
        troubled=troubled,
        sensitivity=tuple(compute_sensitivity(methods, metric, order, troubled)),
        verdict=verdict,
        warnings=tuple(warned),
        samples=select_samples(study),
        task=_task(study),
        prompts=_prompts(study),
        generated=max([run.finished or run.started or "" for run in study.runs]) or "n/a",
    )


def explore(
    study: Study, declared: Declared, order: Sequence[str], family: int, by_seed: bool = False
) -> list[Comparison]:
    """The other final metrics against the baseline, at the level of the headline metric; exploratory."""
    found = []
    for name in secondary_metrics(study, declared.metric):
        scores = {method: final_values(study.runs_of(method), name) for method in order}
        if all(scores.values()):
            metric = metric_named(name)
            pairs = by_seed and {len(row) for row in scores.values()} == {len(study.seeds)}
            found += [compare(metric, scores, method, order[0], family=family, by_seed=pairs) for method in order[1:]]
    return found


def secondary_metrics(study: Study, headline: str) -> list[str]:
    """Final metrics beside the headline, known ones first."""
    there = {name for run in study.runs for name in run.metrics if name.startswith("final/")}
    there = {name for name in there if not name.startswith(("final/start_", PREFIX)) and name != headline}
    familiar = [name for name in metric_names.FINAL if name in there]
    return [
        *sorted(name for name in there if name.startswith(metric_names.PASS_AT)),
        *familiar,
        *sorted(name for name in there if name not in familiar and not name.startswith(metric_names.PASS_AT)),
    ]


def _prompts(study: Study) -> int | None:
    sizes = [len(run.answers) for run in study.runs if run.answers]
    return max(sizes) if sizes else None


def _task(study: Study) -> str:
    names = {(run.manifest.get("data") or {}).get("name") for run in study.runs if run.manifest}
    return listed(sorted(name for name in names if name)) if names - {None} else study.name
