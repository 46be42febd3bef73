"""Charts of learning: the headline metric on validation prompts, the training reward and KL."""

from ..findings import Findings
from ..study.curves import Line, first_known, learning_lines, x_axis
from ..study.load import Study
from ..study.methods import Method
from ..study.metrics import metric_named
from .charts import Chart, curve_chart

SMALL_MULTIPLES_FROM = 3
"""Methods from which every method has a panel of its own: the seeds of several would not be distinguishable."""


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
            charts += metric_charts(findings, f"learning-{name}", title, metric)
    return charts


def _headline_charts(findings: Findings, metric: str) -> list[Chart]:
    described = metric_named(metric)
    lines = learning_lines(findings.study, findings.study.methods, metric, described.scale)
    if not lines:
        return []
    if len(findings.methods) < SMALL_MULTIPLES_FROM:
        return metric_charts(findings, "learning-headline", described.axis(), metric, described.scale)
    axis = x_axis(findings.study)
    values = [y for line in lines.values() for _, ys in line.seeds for y in ys]
    pad = 0.05 * (max(values) - min(values))
    limits = min(values) - pad, max(values) + pad
    overview = curve_chart(
        "learning-means", f"{described.axis()}, means", findings.methods, lines, axis, each_seed=False, limits=limits
    )
    return [overview, *(_small_multiple(method, described.axis(), lines, axis, limits) for method in findings.methods)]


def _small_multiple(
    method: Method, title: str, lines: dict[str, Line], axis: tuple[float, str], limits: tuple[float, float]
) -> Chart:
    others = [name for name in lines if name != method.name]
    return curve_chart(
        f"learning-{method.place}", f"{method.label}: {title}", [method], lines, axis, behind=others, limits=limits
    )


def metric_charts(findings: Findings, name: str, title: str, metric: str, scale: float = 1.0) -> list[Chart]:
    """One chart of a metric over training; none unless every method has its curve."""
    lines = learning_lines(findings.study, findings.study.methods, metric, scale)
    few = len(findings.methods) < SMALL_MULTIPLES_FROM
    shown = title if few else f"{title}, means"
    return [curve_chart(name, shown, findings.methods, lines, x_axis(findings.study), each_seed=few)] if (lines) else []
