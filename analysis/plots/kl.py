"""Charts of KL and length: reward against KL, answer length over training, and the lengths of the final answers."""

from ..findings import Findings
from ..study.curves import first_known, gain_paths
from .charts import Chart, length_chart, path_chart
from .learning import kl_metric, metric_charts


def kl_charts(findings: Findings) -> list[Chart]:
    """Reward against KL where gold does not show more, answer length over training, and the lengths at the end."""
    study = findings.study
    charts: list[Chart] = []
    gain, price = first_known(study, ("eval/avg_reward", "rewards/mean")), kl_metric(study)
    if gain and price and not findings.over_optimization:
        paths = {method.name: gain_paths(study.runs_of(method.name), gain, price, 1.0) for method in findings.methods}
        if all(paths.values()):
            title = "validation reward" if gain.startswith("eval/") else "training reward"
            charts.append(path_chart("frontier", title, "KL from the SFT model (nats)", findings.methods, paths))
    length = first_known(study, ("eval/avg_response_length", "rollout/response_length"))
    if length:
        charts += metric_charts(findings, "length", "mean answer length (tokens)", length)
    lengths = length_chart(findings.methods, answer_lengths(findings))
    return charts if lengths is None else [*charts, lengths]


def answer_lengths(findings: Findings) -> dict[str, list[int]]:
    """Token counts of the final answers by method, split into correct and incorrect ones if known."""
    lengths: dict[str, list[int]] = {}
    for method in findings.methods:
        rows = [row for run in method.runs for row in run.answers if row.get("tokens") is not None]
        for kind, right in ((" right", True), (" wrong", False), ("", None)):
            lengths[f"{method.label}{kind}"] = [row["tokens"] for row in rows if row.get("correct") is right]
    return lengths
