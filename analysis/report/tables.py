"""What stands in the cells of the tables: numbers, intervals and their small drawings."""

from math import isfinite
from typing import Any

from markupsafe import Markup

from alignbench.core import metric_names

from ..comparison.compare import Comparison
from ..comparison.costs import GIB, Cost
from ..comparison.stage_costs import GB, StageCost
from ..comparison.verdict import difference_from, format_subtraction
from ..findings import Findings
from ..plots import inline_svg
from ..statistics import Estimate
from ..study.answers import AnswerChange
from ..study.curves import learning_lines, x_axis
from ..study.load import Run
from ..study.methods import Method
from ..study.metrics import MINUS, REASONS, Metric, counted, metric_named, signed, significant
from ..validity.overoptimization import SeedFall

MOST_REACH = 8.0  # of the shared axis of effect sizes; beyond it an arrowhead says that the interval goes on


def fixed(value: float | None, digits: int = 2) -> str:
    """A plain number, n/a where there is none."""
    return "n/a" if value is None or not isfinite(value) else f"{value:.{digits}f}".replace("-", MINUS)


def ends(metric: Metric, estimate: Estimate) -> str:
    """-3.1 to +3.9, or why there is no interval."""
    if estimate.low is None or estimate.high is None:
        return f"no interval: {REASONS.get(estimate.reason or '', estimate.reason or '')}"
    return f"{metric.signed(estimate.low)} to {metric.signed(estimate.high)}"


def difference(metric: Metric, estimate: Estimate) -> str:
    """+0.4 points (-3.1 to +3.9), or without the interval that does not exist."""
    interval = f" ({ends(metric, estimate)})" if estimate.value is not None else ""
    return f"{metric.difference(estimate.value)}{interval}"


def standard(estimate: Estimate) -> str:
    """A standardized effect with its interval; it is never written without."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return f"n/a: {REASONS.get(estimate.reason or '', estimate.reason or '')}"
    return f"{signed(estimate.value, 2)} ({signed(estimate.low, 2)} to {signed(estimate.high, 2)})"


def effect_rows(pair: Comparison) -> list[tuple[str, str, Estimate, str, str, bool]]:
    """Raw difference, Hedges g and Cohen's d of the only pair: title, note, estimate, text, interval, turned."""
    metric, turned = pair.metric, pair.metric.better == "less"
    unit = f", {metric.unit}" if metric.unit else ""
    rows = [
        (
            "Difference",
            f"{format_subtraction(pair)}{unit}",
            pair.difference,
            metric.signed(pair.difference.value),
            ends(metric, pair.difference),
            turned,
        )
    ]
    for title, note, estimate in (
        ("Hedges g", "in units of the spread between seeds, corrected for few seeds", pair.hedges_g),
        ("Cohen's d", "the same without the correction", pair.cohens_d),
    ):
        interval = f"{signed(estimate.low, 2)} to {signed(estimate.high, 2)}"
        text = REASONS.get(estimate.reason or "", "") if estimate.value is None else interval
        rows.append((title, note, estimate, signed(estimate.value, 2), text, turned))
    return rows


def own_scale(estimate: Estimate, turned: bool) -> Markup:
    """An interval on an axis of its own."""
    reach = 1.3 * max(abs(estimate.low or 0.0), abs(estimate.high or 0.0))
    return _row(estimate, reach, turned, None)


def _row(estimate: Estimate, reach: float, turned: bool, method: Method | None) -> Markup:
    value, low, high = estimate.value, estimate.low, estimate.high
    if turned and value is not None and low is not None and high is not None:
        value, low, high = -value, -high, -low
    return inline_svg.interval_row(value, low, high, reach, method)


def forest_reach(pairs: list[Comparison]) -> float:
    """Half the width of the shared axis of effect sizes."""
    known = [abs(end) for pair in pairs for end in (pair.hedges_g.low, pair.hedges_g.high) if end is not None]
    return min(MOST_REACH, 1.05 * max(known, default=1.0))


def forest_row(findings: Findings, pair: Comparison, reach: float, several: bool) -> Markup:
    """Hedges g on the shared axis, turned so that right is better for the other method."""
    method = findings.method(pair.treatment) if several else None
    return _row(pair.hedges_g, reach, pair.metric.better == "less", method)


def kind(findings: Findings, pair: Comparison) -> str:
    """What a metric is for, and which direction is better."""
    words = "headline, decides" if pair.metric.name == findings.declared.metric else "exploratory"
    direction = {"less": "; less is better", "neither": "; no better direction", "more": ""}[pair.metric.better]
    return f"{words}{direction}"


def matrix_cell(findings: Findings, row: Method, column: Method) -> dict[str, str]:
    """Row minus column with its interval; tinted where the interval excludes zero."""
    pair = next((p for p in findings.pairs if {p.treatment, p.baseline} == {row.name, column.name}), None)
    if pair is None or row is column:
        return {"tint": "na", "text": "", "interval": ""}
    if findings.state_of(pair) == "incomplete":
        return {"tint": "na", "text": "n/a", "interval": "a run has no result"}
    estimate, metric = difference_from(row.name, pair), pair.metric
    sign = -1 if metric.better == "less" else 1
    ahead = (
        estimate.low is not None
        and estimate.high is not None
        and (
            1
            if min(sign * estimate.low, sign * estimate.high) > 0
            else -1
            if max(sign * estimate.low, sign * estimate.high) < 0
            else 0
        )
    )
    arrow = {1: "\N{BLACK UP-POINTING TRIANGLE} ", -1: "\N{BLACK DOWN-POINTING TRIANGLE} "}.get(int(ahead), "")
    return {
        "tint": {1: "up", -1: "dn"}.get(int(ahead), ""),
        "text": f"{arrow}{metric.signed(estimate.value)}",
        "interval": ends(metric, estimate),
    }


def start_note(findings: Findings) -> str:
    """Where the SFT model stood."""
    starts = {findings.metric.level(method.start) for method in findings.methods if method.start is not None}
    return (
        f"The SFT model they start from has {', '.join(sorted(starts))}."
        if starts
        else "The SFT start was not measured."
    )


def curve_table(findings: Findings) -> dict[str, Any]:
    """Seven rows of the first learning figure, as numbers."""
    metric = metric_named(findings.declared.metric.replace("final/", "eval/", 1))
    lines = learning_lines(findings.study, findings.study.methods, metric.name, metric.scale)
    divisor, unit = x_axis(findings.study)
    if not lines:
        return {"unit": unit, "rows": []}
    points = min(len(line.mean_x) for line in lines.values())
    places = sorted({round(i * (points - 1) / 6) for i in range(7)})
    first = lines[findings.methods[0].name]
    rows = [
        (
            significant(first.mean_x[i] / divisor),
            [fixed(lines[method.name].mean_y[i], metric.digits) for method in findings.methods],
        )
        for i in places
    ]
    return {"unit": unit, "rows": rows}


def run_costs(run: Run) -> list[str]:
    """Tokens, seconds and peak memory of a run."""
    spent = [
        run.ledger.get(key, run.metrics.get(name))
        for key, name in (
            ("tokens", metric_names.TOKENS),
            ("seconds", metric_names.SECONDS),
            ("peak_memory_bytes", metric_names.PEAK_MEMORY),
        )
    ]
    tokens, seconds, memory = spent
    return [
        significant(None if tokens is None else tokens / 1e6),
        significant(seconds),
        significant(None if memory is None else memory / GIB),
    ]


def changed(change: AnswerChange, method: Method) -> str:
    """46.0 to 106.2: a trait of the answers before RL and at the end."""
    start, end = change.start[method.name], change.end[method.name]
    if end is None:
        return "n/a"
    text = change.metric.level(end)
    return text if start is None else f"{change.metric.level(start)} \N{RIGHTWARDS ARROW} {text}"


def seed_cells(seed: SeedFall) -> list[str]:
    """Gold: start, peak of the others, end, fall; the proxy: at that peak, at the end, its rise."""
    return [fixed(number) for number in (*seed.gold, seed.fall, *seed.proxy, seed.rise)]


def phase_cells(cost: StageCost) -> list[str]:
    """Seconds, tokens and peak memory of a phase."""
    memory = None if cost.peak_memory_bytes is None else cost.peak_memory_bytes / GIB
    return ["" if number is None else significant(number) for number in (cost.seconds, cost.tokens, memory)]


def expectation(cost: StageCost) -> str:
    """4.31 GB; expected 4 to 5 GB: as expected."""
    if cost.expected_gb is None or cost.peak_memory_bytes is None:
        return ""
    low, high = (f"{end:g}" for end in cost.expected_gb)
    span = low if low == high else f"{low} to {high}"
    return f"{cost.peak_memory_bytes / GB:.2f} GB measured, {span} GB expected: {cost.verdict}"


def cost_mean(cost: Cost, method: Method) -> str:
    """The mean price of a run of a method."""
    values = cost.values[method.name]
    text = significant(sum(values) / len(values) / cost.divisor)
    return f"${text}" if cost.key == "price" else text


def selected(run: Run) -> str:
    """Which weights the final numbers are of, where they are not the last ones."""
    step = run.manifest.get("selected_step")
    last = max((curve.steps[-1] for name, curve in run.curves.items() if name.startswith("eval/")), default=None)
    return f"weights of step {step}, of {last}" if step is not None and last is not None and step < last else ""


def remark(run: Run) -> str:
    """What is special about a run."""
    words = [
        run.reason or "",
        "second run of this method and seed, not counted" if not run.counted else "",
        f"resumed {counted(run.resumed, 'time')}" if run.resumed else "",
        selected(run),
        "uncommitted changes" if (run.manifest.get("git") or {}).get("dirty") else "",
        f"{run.determinism} reproducible" if run.determinism else "",
    ]
    return "; ".join(word for word in words if word)
