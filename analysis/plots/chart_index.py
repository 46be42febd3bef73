"""Which charts a report holds, section by section."""

from ..findings import Findings
from ..study.curves import Line, first_known, gain_paths, learning_lines, x_axis
from ..study.load import Study
from ..study.methods import Method
from ..study.metrics import metric_named
from . import charts as figures
from . import effect, overoptimization, reward_model, seeds
from .charts import Chart
from .judge import judge_charts

ChartIndex = dict[str, list[Chart]]
SMALL_MULTIPLES_FROM = 3  # methods; more than two in one panel of seeds cannot be told apart


def draw(findings: Findings) -> ChartIndex:
    """All charts by section; a section without data has an empty list."""
    return {
        "verdict": _present(effect.difference_chart(findings)),
        "seeds": _present(seeds.seeds_chart(findings)),
        "learning": learning_charts(findings),
        "proxy": overoptimization.proxy_charts(findings),
        "pairs": reward_model.pair_charts(findings),
        "kl": kl_charts(findings),
        "judge": judge_charts(findings),
        "cost": _present(*(figures.cost_chart(findings, key) for key in ("tokens", "seconds", "peak_memory_bytes"))),
    }


def _present(*charts: Chart | None) -> list[Chart]:
    return [chart for chart in charts if chart is not None]


def kl_metric(study: Study) -> str | None:
    """Where the distance from the SFT model was measured: on validation prompts, else during rollouts."""
    return first_known(study, ("eval/kl", "rollout/kl_sequence"))


def learning_charts(findings: Findings) -> list[Chart]:
    """The headline metric on validation prompts, the training reward and KL."""
    study = findings.study
    headline = findings.declared.metric.replace("final/", "eval/", 1)
    charts = _headline_charts(findings, headline)
    for name, metric in (("reward", "rewards/mean"), ("kl", kl_metric(study))):
        if metric:
            title = "training reward" if name == "reward" else "KL from the SFT model (nats)"
            charts += _curves(findings, f"learning-{name}", title, metric)
    return charts


def _headline_charts(findings: Findings, metric: str) -> list[Chart]:
    described = metric_named(metric)
    lines = learning_lines(findings.study, findings.study.methods, metric, described.scale)
    if not lines:
        return []
    if len(findings.methods) < SMALL_MULTIPLES_FROM:
        return _curves(findings, "learning-headline", described.axis(), metric, described.scale)
    axis = x_axis(findings.study)
    values = [y for line in lines.values() for _, ys in line.seeds for y in ys]
    pad = 0.05 * (max(values) - min(values))
    limits = min(values) - pad, max(values) + pad
    overview = figures.curve_chart(
        "learning-means", f"{described.axis()}, means", findings.methods, lines, axis, each_seed=False, limits=limits
    )
    return [overview, *(_small_multiple(method, described.axis(), lines, axis, limits) for method in findings.methods)]


def _small_multiple(
    method: Method, title: str, lines: dict[str, Line], axis: tuple[float, str], limits: tuple[float, float]
) -> Chart:
    others = [name for name in lines if name != method.name]
    return figures.curve_chart(
        f"learning-{method.place}", f"{method.label}: {title}", [method], lines, axis, behind=others, limits=limits
    )


def _curves(findings: Findings, name: str, title: str, metric: str, scale: float = 1.0) -> list[Chart]:
    lines = learning_lines(findings.study, findings.study.methods, metric, scale)
    few = len(findings.methods) < SMALL_MULTIPLES_FROM
    shown = title if few else f"{title}, means"
    return (
        [figures.curve_chart(name, shown, findings.methods, lines, x_axis(findings.study), each_seed=few)]
        if (lines)
        else []
    )


def kl_charts(findings: Findings) -> list[Chart]:
    """Reward against KL where gold does not show more, answer length over training, and the lengths at the end."""
    study = findings.study
    charts: list[Chart] = []
    gain, price = first_known(study, ("eval/avg_reward", "rewards/mean")), kl_metric(study)
    if gain and price and not findings.over_optimization:
        paths = {method.name: gain_paths(study.runs_of(method.name), gain, price, 1.0) for method in findings.methods}
        if all(paths.values()):
            title = "validation reward" if gain.startswith("eval/") else "training reward"
            charts.append(
                figures.path_chart("frontier", title, "KL from the SFT model (nats)", findings.methods, paths)
            )
    length = first_known(study, ("eval/avg_response_length", "rollout/response_length"))
    if length:
        charts += _curves(findings, "length", "mean answer length (tokens)", length)
    return charts + _present(figures.length_chart(findings.methods, answer_lengths(findings)))


def answer_lengths(findings: Findings) -> dict[str, list[int]]:
    """Token counts of the final answers by method, split into right and wrong where that is known."""
    lengths: dict[str, list[int]] = {}
    for method in findings.methods:
        rows = [row for run in method.runs for row in run.answers if row.get("tokens") is not None]
        for kind, right in ((" right", True), (" wrong", False), ("", None)):
            lengths[f"{method.label}{kind}"] = [row["tokens"] for row in rows if row.get("correct") is right]
    return lengths
