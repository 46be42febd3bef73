"""Python API: compose a config, run it in this process, load runs and studies, compare two methods."""

import difflib
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignbench.commands.environment import set_environment
from alignbench.core.errors import UserError
from alignbench.runs.analysis_process import package

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

__all__ = ["Comparison", "Run", "Study", "UserError", "compose", "load_run", "load_study", "run"]


def compose(*overrides: str, config_dir: str | Path | None = None, **values: Any) -> "DictConfig":
    """Compose the config of one run from options and overrides, as the command line does.

    Args:
        overrides: Hydra overrides such as `"algo=grpo"`, `"rl.steps=2"` or `"+preset=phi3_math"`.
        config_dir: A folder with config groups of your own, such as `<config_dir>/reward/mine.yaml`.
        values: The same by keyword, with Python values: None, bool, int, float, str, a path, or lists and dicts of
            these. `seed=42` is `"seed=42"`; `rl={"steps": 2}` or `**{"rl.steps": 2}` is `"rl.steps=2"`.

    Returns:
        The composed config, interpolations resolved, without Hydra's own section. Its keys are listed in
        docs/configuration.md.

    Raises:
        UserError: an option or a key does not exist, or a value has the wrong type or is out of range. The message
            names the key and, where one is similar, the key that was probably meant.

    Example:
        >>> import alignbench as ab
        >>> cfg = ab.compose("algo=grpo", "model=tiny", seed=42, rl={"steps": 2})
        >>> cfg.rl.steps
        2
    """
    from alignbench.runs.compose import compose as compose_run
    from alignbench.runs.compose import override
    from alignbench.runs.settings import check

    given = [override(key, value) for key, value in values.items()]
    cfg = compose_run(*overrides, *given, config_dir=config_dir)
    check(cfg)
    return cfg


def run(cfg: "DictConfig") -> "Run":
    """Run SFT, the reward model where one is needed, RL and the evaluation, all in this process.

    A run that is already finished is not repeated. An interrupted run resumes at its last checkpoint. The run sets
    torch's seeds, number of threads and deterministic algorithms in this process.

    Args:
        cfg: A composed config, see `compose`.

    Returns:
        The finished run.

    Raises:
        UserError: the config, the data or the environment is wrong; nothing was trained then.
        InvariantBroken: a training invariant failed; the run folder has a dump of the step.

    Example:
        >>> finished = ab.run(ab.compose("algo=grpo", study="first", rl={"steps": 2}))
        >>> finished.summary["final/accuracy"]
    """
    set_environment()
    from alignbench.runs.pipeline import run as run_pipeline
    from alignbench.runs.settings import identify, is_plan, resolve

    if is_plan(resolve(cfg)):
        raise UserError("plan: ab.run trains; a plan is printed by the command line, as in `alignbench plan=true`")
    run_pipeline(cfg)
    return load_run(identify(cfg).run_dir)


def load_run(folder: str | Path) -> "Run":
    """Load one run from its folder, such as `outputs/runs/<study>/<run>`; it need not be finished.

    Raises:
        UserError: the folder holds no run, or one of its files cannot be read.

    Example:
        >>> ab.load_run("outputs/runs/first/grpo-tiny-s42-0a1b2c3d").metrics
    """
    place = Path(folder)
    files = _analysis("study.files")
    status = files.read_json(place / "status.json")
    if not status:
        raise UserError(
            f"{place}: no run in this folder (no status.json); give a folder such as outputs/runs/<study>/<run>"
        )
    return Run(folder=place, status=status["status"], config=files.read_yaml(place / "config.yaml"))


def load_study(name: str, output_dir: str | Path = "outputs") -> "Study":
    """Load all runs of a study: those on disk, those that only MLflow knows, and those planned and never started.

    Raises:
        UserError: no run of this study exists, or one of its files cannot be read.

    Example:
        >>> study = ab.load_study("ppo_vs_grpo")
        >>> study.runs.groupby("method")["final/accuracy"].mean()
    """
    return Study(_analysis("study.load").load_study(name, Path(output_dir)))


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run, read from its folder."""

    folder: Path
    """The folder of the run."""
    status: str
    """finished, failed, interrupted or running."""
    config: dict[str, Any] = field(repr=False)
    """The config it was run with; empty for a run that failed before it was written."""

    @property
    def method(self) -> str:
        """The option of the group `algo`."""
        return str(self.config["names"]["method"])

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.config["seed"])

    @cached_property
    def metrics(self) -> "pd.DataFrame":
        """What the run logged, one row for each logged stage and step, in order.

        Columns: `stage` (str: rl or evaluate), `step` (int: RL step, 0 is before training), and one float column for
        each metric, NaN where it was not measured at that step. Fractions are in [0, 1], seconds in s, memory in
        bytes, KL in nats; columns that begin with `budget/` and `cost/` accumulate over the run.
        """
        import pandas as pd

        rows = _metric_rows(self.folder)
        return pd.DataFrame(rows, columns=_columns(["stage", "step"], rows))

    @cached_property
    def evals(self) -> "pd.DataFrame":
        """The final answers to the test prompts, one row for each prompt (the rows of eval.jsonl).

        Columns: `method` (str), `seed` (int), `prompt_id` (str), `prompt`, `response` (str), `tokens` (int, of the
        response), `truncated` (bool: cut at the length limit), `reward` (float), one float column
        `reward/<name>` for each component of the reward, `gold` (float) where the dataset knows the true quality,
        `reference` (str), `correct` (bool) and `stratum` (str), None where the dataset has none. Empty before
        the evaluation.
        """
        import pandas as pd

        rows = [_eval_row(row) for row in _analysis("study.files").read_lines(self.folder / "eval.jsonl", [])]
        return pd.DataFrame(rows, columns=_columns(["method", "seed"], rows))

    @property
    def summary(self) -> dict[str, float]:
        """The final numbers by name (`final/...`), measured on the test prompts; empty before the evaluation."""
        return {
            str(name): float(values.iloc[-1])
            for name in self.metrics.columns
            if name.startswith("final/") and len(values := self.metrics[name].dropna())
        }

    def model(self, device: str = "cpu") -> tuple[Any, Any]:
        """Load the final weights: a transformers model in evaluation mode, adapter included, and its tokenizer.

        Raises:
            UserError: the run is not finished, or its base model cannot be loaded.
        """
        from alignbench.runs.completed_run import CompletedRun

        model, text = CompletedRun.open(str(self.folder)).final.load(device)
        return model.eval(), text.tokenizer


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two methods on one metric, as the report of the study compares them: second minus first."""

    first: str
    """The method that is subtracted: the baseline."""
    second: str
    """The method that the verdict is about: the treatment."""
    metric: str
    """The metric compared, in its own units (a fraction for accuracy)."""
    seeds: tuple[int, int]
    """Number of seeds of first and second."""
    difference: float | None
    """Mean over seeds of second minus mean of first; None without a seed of each."""
    interval: tuple[float, float] | None
    """Confidence interval of the difference (low, high); None below two seeds."""
    level: float
    """Confidence level of the interval: 0.95 for two methods, higher for more (Bonferroni over all pairs)."""
    d: float | None
    """Cohen's d with the pooled standard deviation over seeds."""
    g: float | None
    """Hedges' g: d corrected for few seeds."""
    p: float | None
    """p-value of Welch's t-test, or of the paired t-test where the study is paired by seed; not adjusted."""
    p_holm: float | None
    """The p-value adjusted for all pairs of the study (Holm)."""
    margin: float | None
    """Differences within it do not matter, in units of the metric; None where no margin was declared."""
    verdict: str
    """better, worse (of the second method), equivalent, inconclusive, incomplete or not_comparable."""
    sentence: str
    """The verdict in one sentence with its numbers."""

    def __str__(self) -> str:
        return self.sentence


class Study:
    """All runs of a study, and the comparisons that its report makes."""

    def __init__(self, loaded: Any) -> None:
        """`loaded` is the study as the analysis package loads it, see `load_study`."""
        self._loaded = loaded

    def __repr__(self) -> str:
        return f"<Study {self.name}: {len(self._loaded.runs)} runs of {', '.join(self.methods)}>"

    @property
    def name(self) -> str:
        """The name of the study."""
        return str(self._loaded.name)

    @property
    def output_dir(self) -> Path:
        """The folder that holds runs/ and reports/."""
        return Path(self._loaded.output_dir)

    @property
    def methods(self) -> list[str]:
        """The compared methods, in the order of the report."""
        return list(self._loaded.methods)

    @cached_property
    def runs(self) -> "pd.DataFrame":
        """One row for each run, planned runs first.

        Columns: `method` (str), `seed` (int), `status` (finished, failed, interrupted, running or missing), `counted`
        (bool: False for a second run of the same method and seed, which no comparison uses), `key` (str, hash of the
        config), `folder` (str), and one float column for each final metric (`final/...`), NaN where not measured.
        """
        import pandas as pd

        rows = [
            {
                "method": run.method,
                "seed": run.seed,
                "status": run.status,
                "counted": run.counted,
                "key": run.key,
                "folder": str(self.output_dir / run.folder),
                **{name: value for name, value in sorted(run.metrics.items()) if name.startswith("final/")},
            }
            for run in self._loaded.runs
        ]
        first = ["method", "seed", "status", "counted", "key", "folder"]
        return pd.DataFrame(rows, columns=_columns(first, rows))

    @cached_property
    def metrics(self) -> "pd.DataFrame":
        """What every counted run on disk logged, one row for each run, stage and step.

        Columns: `method`, `seed`, then those of `Run.metrics`: `stage`, `step` and one float column for each metric.
        """
        import pandas as pd

        rows = [
            {"method": run.method, "seed": run.seed, **row}
            for run in self._counted()
            for row in _metric_rows(self.output_dir / run.folder)
        ]
        return pd.DataFrame(rows, columns=_columns(["method", "seed", "stage", "step"], rows))

    @cached_property
    def evals(self) -> "pd.DataFrame":
        """The final answers of every counted run, one row for each method, seed and test prompt.

        Columns: `method`, `seed`, then those of `Run.evals`, such as `prompt_id`, `response`, `correct` and `reward`.
        """
        import pandas as pd

        rows = [
            {**_eval_row(row), "method": run.method, "seed": run.seed} for run in self._counted() for row in run.answers
        ]
        return pd.DataFrame(rows, columns=_columns(["method", "seed"], rows))

    def compare(self, first: str, second: str, metric: str | None = None, margin: float | None = None) -> Comparison:
        """Compare two methods over seeds: second minus first, exactly as the report with baseline `first` does.

        Args:
            first: The baseline, one of `methods`.
            second: The other method; the verdict is about this one.
            metric: A final metric such as `final/accuracy`; None is the metric that the runs declared, else
                final/gold, final/accuracy or final/avg_reward, whichever the runs have first.
            margin: The smallest difference that matters, in units of the metric; None is what the runs declared.

        Raises:
            UserError: a method or the metric does not exist in this study, or the margin is not above zero.

        Example:
            >>> result = study.compare("ppo", "grpo")
            >>> result.verdict, result.difference, result.interval
        """
        for name in (first, second):
            if name not in self.methods:
                near = difflib.get_close_matches(name, self.methods, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise UserError(f"{name!r}: {hint}study {self.name} has the methods {', '.join(self.methods)}")
        if first == second:
            raise UserError(f"{first!r} cannot be compared with itself: give two methods")
        if metric is not None and not metric.startswith("final/"):
            raise UserError(f"metric={metric}: methods are compared on a final metric, such as final/accuracy")
        if margin is not None and not 0 < margin < float("inf"):
            raise UserError(f"margin={margin}: must be above zero and finite")
        findings = self._findings(baseline=first, metric=metric, margin=margin)
        pair = next(p for p in findings.pairs if (p.baseline, p.treatment) == (first, second))
        return _comparison(findings, pair)

    def report(self, folder: str | Path | None = None, judge: str = "none") -> Path:
        """Write the report of the study: report.html, report.md, report.json and figures/.

        Args:
            folder: Where to write; None is `<output_dir>/reports/<name>`, as the command `alignbench report` does.
            judge: An option of the group `judge`, such as `gpt4o_mini`: an LLM judge compares the answers.

        Returns:
            The path of report.html.

        Raises:
            UserError: the judge does not exist or cannot be queried, or the folder cannot be written.
        """
        findings = self._findings(judge=(f"judge={judge}",))
        return Path(_analysis("report.write").write_report(findings, None if folder is None else Path(folder)))

    def _counted(self) -> list[Any]:
        return [run for method in self.methods for run in self._loaded.runs_of(method)]

    def _findings(self, judge: tuple[str, ...] = ("judge=none",), **options: Any) -> Any:
        """What the report of the study is made from."""
        chosen = _analysis("study.options").Options(study=self.name, output_dir=self.output_dir, judge=judge, **options)
        return _analysis("findings").find(chosen)


def _comparison(findings: Any, pair: Any) -> Comparison:
    verdicts = _analysis("comparison.verdict")
    state = findings.state_of(pair)
    whole = len(findings.pairs) == 1 or state in ("incomplete", "not_comparable")
    low, high = pair.difference.low, pair.difference.high
    return Comparison(
        first=pair.baseline,
        second=pair.treatment,
        metric=pair.metric.name,
        seeds=(pair.n[1], pair.n[0]),
        difference=pair.difference.value,
        interval=None if low is None or high is None else (low, high),
        level=1 - _analysis("comparison.compare").ALPHA / pair.family,
        d=pair.cohens_d.value,
        g=pair.hedges_g.value,
        p=pair.test.p,
        p_holm=pair.p_holm,
        margin=pair.margin,
        verdict=state,
        sentence=findings.verdict.sentence if whole else verdicts.decide_pair(pair).sentence,
    )


def _metric_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl; what was written twice for a step, by a run that resumed, counts as last written."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for line in _analysis("study.files").read_lines(folder / "metrics.jsonl", []):
        row = rows.setdefault((line["phase"], int(line["step"])), {"stage": line["phase"], "step": int(line["step"])})
        row |= {name: float(value) for name, value in {**line["metrics"], **line.get("not_finite", {})}.items()}
    return list(rows.values())


def _eval_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of eval.jsonl with its scores as columns of their own."""
    named = {"total": "reward", "gold": "gold"}
    scores = {named.get(name, f"reward/{name}"): value for name, value in row["scores"].items()}
    return {**{name: value for name, value in row.items() if name != "scores"}, **scores}


def _columns(first: list[str], rows: list[dict[str, Any]]) -> list[str]:
    """The first columns, then the others in the order in which they appear."""
    return list(dict.fromkeys([*first, *(name for row in rows for name in row)]))


def _analysis(module: str) -> Any:
    """A module of the analysis package: top-level in a checkout, inside alignbench in a wheel."""
    return import_module(f"{package()}.{module}")
