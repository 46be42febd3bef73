"""Differences between methods: effect sizes, tests, new prompts, and the exploratory metrics."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from markupsafe import Markup

from ...comparison.compare import Comparison
from ...comparison.variance import VarianceByPrompt, format_advice, format_mcnemar, format_spreads
from ...comparison.verdict import difference_from, format_interval, format_subtraction
from ...findings import Findings
from ...plots import inline_svg
from ...plots.charts import Chart
from ...statistics import Estimate, interquartile_mean
from ...study.methods import Method
from ...study.metrics import capitalized, explain, method_label, signed
from ...validity.scope import format_pairing_note
from .. import tables
from ..json_values import estimate_data, finite
from ..section import Block, Heading, Section, Table, Template, Text
from ..verdict_text import which

LONGEST_AXIS = 8.0
"""Half the width of the shared axis of effect sizes at most; an arrowhead marks an interval cut by the axis."""


# --- JSON -------------------------------------------------------------------------------------------------------------


def data(findings: Findings) -> dict[str, Any]:
    """Headline and exploratory comparisons, the design, and the crossed analysis of seeds and prompts."""
    return {
        "comparisons": [_comparison(pair, findings.state_of(pair)) for pair in findings.pairs],
        "exploratory": [_comparison(pair, "not_tested") for pair in findings.exploratory],
        "pairing": {"by_seed": findings.pairing.by_seed, "refused": findings.pairing.refusal},
        "by_prompt": [_by_prompt(row) for row in findings.by_prompt],
    }


def _comparison(pair: Comparison, verdict: str) -> dict[str, Any]:
    return {
        "treatment": pair.treatment,
        "baseline": pair.baseline,
        "metric": pair.metric.name,
        "n": list(pair.n),
        "means": [finite(sum(row) / len(row)) if row else None for row in pair.scores],
        "difference": estimate_data(pair.difference),
        "cohens_d": estimate_data(pair.cohens_d),
        "hedges_g": estimate_data(pair.hedges_g),
        "welch": {"t": pair.welch.t, "df": pair.welch.df, "p": pair.welch.p, "p_holm": pair.p_holm},
        "glass_delta": estimate_data(pair.glass_delta),
        "paired": _paired(pair),
        "interquartile_means": [estimate_data(interquartile_mean(row)) for row in pair.scores],
        "probability_of_improvement": pair.probability_of_improvement,
        "probability_above_zero": pair.test.probability_above_zero,
        "permutation": {"p": pair.permutation.p, "smallest_possible_p": pair.permutation.smallest},
        "pairs_in_family": pair.family,
        "minimum_detectable_d": pair.detectable_d,
        "power_of_welch_at_minimum_detectable_d": pair.welch_power,
        "minimum_detectable_difference": pair.detectable,
        "seeds_needed_for": {"0.8": pair.seeds_needed_for_d(0.8)},
        "verdict": verdict,
    }


def _paired(pair: Comparison) -> dict[str, Any] | None:
    test = pair.paired
    if test is None:
        return None
    numbers = {"t": test.t, "df": test.df, "p": test.p, "correlation": test.correlation}
    return {**numbers, "d_z": estimate_data(test.d_z), "d_av": estimate_data(test.d_av)}


def _by_prompt(row: VarianceByPrompt) -> dict[str, Any]:
    budget = row.crossed.budget
    return {
        "treatment": row.comparison.treatment,
        "baseline": row.comparison.baseline,
        "prompts": row.prompts,
        "new_prompts": estimate_data(row.crossed.new_prompts),
        "new_seeds_and_prompts": estimate_data(row.crossed.new_both),
        "variance": None if budget is None else dict(zip(("seeds", "prompts", "rest"), budget.shares, strict=True)),
        "standard_error": None if budget is None else budget.error(),
        "narrowed_more_by": None if budget is None else budget.larger_source,
        "mcnemar": None if row.mcnemar is None else asdict(row.mcnemar),
    }


# --- text and tables --------------------------------------------------------------------------------------------------


def caption(findings: Findings) -> str:
    """The difference of two methods, or which of several methods differ."""
    state, pairs = findings.verdict.state, findings.pairs
    if not pairs:
        return "The study has one method, so there is no difference."
    if len(pairs) > 1:
        withheld = state in ("incomplete", "not_comparable")
        return "Given for completeness; these differences are not a result." if withheld else which(findings)
    pair = pairs[0]
    if state == "incomplete":
        return (
            "Not given while a planned run has no result; 'What if?' above shows how far it could move the difference."
        )
    wins, pairings = pair.seed_wins
    conditions = " Not a result: the conditions differ." if state == "not_comparable" else ""
    interval = format_interval(pair.metric, pair.difference, sign=True)
    return (
        f"{pair.metric.difference(pair.difference.value)} {interval}. A "
        f"random {method_label(pair.treatment)} seed is better than a random {method_label(pair.baseline)} seed in "
        f"{wins:g} of {pairings} pairings.{conditions}"
    )


def body(findings: Findings, charts: Sequence[Chart]) -> list[Block]:
    """Caption, effect sizes or matrix, tests, new prompts, exploratory metrics."""
    return [
        Text(text=caption(findings), style="lede"),
        *_headline(findings),
        *_new_prompts(findings),
        *_exploratory(findings),
    ]


def _headline(findings: Findings) -> list[Block]:
    pairs = findings.pairs
    if not pairs:
        return []
    table = _all_numbers(findings)
    if len(pairs) > 1:
        matrix = Template(name="matrix", values={"cell": lambda row, column: matrix_cell(findings, row, column)})
        return [matrix, table, Heading(text="Tests"), _tests(findings)]
    if findings.verdict.state == "incomplete":
        return [table]
    rows = Template(name="effect", values={"rows": effect_rows(pairs[0]), "axis": own_axis})
    return [rows, table, Text(text=_test_note(findings), style="cap")]


def _all_numbers(findings: Findings) -> Table:
    """All effect sizes and tests, for report.md."""
    metric = findings.metric
    columns = [
        "comparison", "n", "difference (95% CI)", "Hedges g", "Cohen's d", "Welch p", "Holm p",
        "permutation p (floor)", "detectable", "verdict",
    ]  # fmt: skip
    rows = [
        [
            format_subtraction(pair),
            f"{pair.n[0]} vs {pair.n[1]}",
            f"{metric.difference(pair.difference.value)} ({tables.ends(metric, pair.difference)})",
            *_test_cells(pair),
            f"d {tables.fixed(pair.detectable_d)}, {metric.size(pair.detectable)}",
            findings.state_of(pair).replace("_", " "),
        ]
        for pair in findings.pairs
    ]
    return Table(label="Effect sizes and tests", columns=columns, rows=rows, only="markdown")


def _test_cells(pair: Comparison) -> list[str]:
    return [
        tables.standard(pair.hedges_g),
        tables.standard(pair.cohens_d),
        tables.fixed(pair.welch.p, 4),
        tables.fixed(pair.p_holm, 4),
        f"{tables.fixed(pair.permutation.p, 3)} ({tables.fixed(pair.permutation.smallest, 3)})",
    ]


def _tests(findings: Findings) -> Table:
    columns = ["comparison", "Hedges g", "Cohen's d", "Welch p", "Holm p", "permutation p (floor)", "verdict"]
    rows = [
        [format_subtraction(pair), *_test_cells(pair), findings.state_of(pair).replace("_", " ")]
        for pair in findings.pairs
        if findings.state_of(pair) != "incomplete"
    ]
    return Table(label="Tests of all comparisons", columns=columns, rows=rows, left=(6,))


def _test_note(findings: Findings) -> str:
    """Test statistics and power of the only comparison."""
    pair, metric = findings.pairs[0], findings.metric
    note = format_pairing_note(findings.pairing, findings.pairs)
    test, exact = ("Paired", "sign-flip") if note else ("Welch", "permutation")
    power = "80% power of a t-test for equal variances"
    if pair.welch_power:
        power += f"; Welch's test, which decides, has {100 * pair.welch_power:.0f}%"
    detectable = f", about {metric.size(pair.detectable)}" if pair.detectable else ""
    return (
        f"{f'{note} ' if note else ''}{test} t = {tables.fixed(pair.test.t)}, df = {tables.fixed(pair.test.df, 1)}, "
        f"p = {tables.fixed(pair.test.p, 3)}; exact {exact} p = {tables.fixed(pair.permutation.p, 3)}, smallest "
        f"possible {tables.fixed(pair.permutation.smallest, 3)}. Smallest detectable d = "
        f"{tables.fixed(pair.detectable_d)} ({power}){detectable}; a true d of 0.8 needs "
        f"{pair.seeds_needed_for_d(0.8)} seeds per method."
    )


def _new_prompts(findings: Findings) -> list[Block]:
    """Intervals for new prompts, and whether more seeds or more prompts would narrow them more."""
    if not findings.pairs or findings.verdict.state == "incomplete":
        return []
    heading = Heading(text="More seeds or more prompts?")
    if not findings.by_prompt:
        return [heading, Text(text=f"n/a: {findings.no_prompts}.", style="mut")]
    metric, first = findings.metric, findings.by_prompt[0]
    unit = f" ({metric.unit})" if metric.unit else ""
    table = Table(
        label="Intervals for seeds and prompts",
        columns=[
            "comparison",
            f"new seeds, these {first.prompts:,} prompts (decides)",
            "these models, new prompts",
            "new seeds and new prompts",
        ],
        rows=[
            [
                format_subtraction(row.comparison),
                *(
                    tables.ends(metric, estimate)
                    for estimate in (row.comparison.difference, row.crossed.new_prompts, row.crossed.new_both)
                ),
            ]
            for row in findings.by_prompt
        ],
        caption=f"The same difference in {metric.label}{unit}: 95% intervals for three populations",
    )
    advice = Text(text=f"{format_advice(findings.by_prompt)}{format_mcnemar(first)}")
    return [heading, advice, table, *_spreads(findings)]


def _spreads(findings: Findings) -> list[Block]:
    first, unit = findings.by_prompt[0], findings.metric.unit
    if len(findings.by_prompt) > 1 or not first.crossed.budget:
        return []
    text = (
        f"Standard deviations{f' in {unit}' if unit else ''}: {format_spreads(first)}. With few seeds these estimates "
        "are imprecise."
    )
    return [Text(text=text, style="cap")]


def _exploratory(findings: Findings) -> list[Block]:
    """Hedges g of every metric on one axis: a drawing in HTML, a table in Markdown."""
    if not findings.exploratory:
        return []
    headline = [pair for pair in findings.against_baseline() if findings.state_of(pair) != "incomplete"]
    rows = [*headline, *findings.exploratory]
    reach = axis_end(rows)
    several = len(findings.methods) > 2
    other = tables.only_other_method(findings)
    values = {
        "rows": rows,
        "several": several,
        "challenger": other.label if other else "the other method",
        "interval": lambda pair: _forest_row(findings, pair, reach, several),
        "kind": lambda pair: _kind(findings, pair),
        "axis": inline_svg.axis_row(reach),
        "ends": tables.ends,
        "capitalized": capitalized,
    }
    note = (
        "Only the headline metric decides. The other metrics are exploratory, and their intervals are not corrected. "
        "The axis is reversed where lower is better, so that right always favors the other method; where no direction "
        "is better, right means more. An arrowhead marks an interval cut by the axis."
    )
    table = Table(
        label="Exploratory metrics",
        columns=["metric", "comparison", "difference (95% CI)", "Hedges g"],
        rows=[
            [
                pair.metric.label,
                format_subtraction(pair),
                f"{pair.metric.difference(pair.difference.value)} ({tables.ends(pair.metric, pair.difference)})",
                tables.standard(pair.hedges_g),
            ]
            for pair in findings.exploratory
        ],
        only="markdown",
    )
    title = f"Do other metrics disagree? Hedges g against {findings.baseline.label}"
    return [Heading(text=title), Template(name="forest", values=values), table, Text(text=note, style="cap")]


# --- drawings in the text ---------------------------------------------------------------------------------------------


def effect_rows(pair: Comparison) -> list[tuple[str, str, Estimate, str, str, bool]]:
    """Raw difference, Hedges g and Cohen's d: title, note, estimate, value, interval, whether the axis is reversed."""
    metric, reversed_ = pair.metric, pair.metric.better == "less"
    unit = f", {metric.unit}" if metric.unit else ""
    rows = [
        (
            "Difference",
            f"{format_subtraction(pair)}{unit}",
            pair.difference,
            metric.signed(pair.difference.value),
            tables.ends(metric, pair.difference),
            reversed_,
        )
    ]
    for title, note, estimate in (
        ("Hedges g", "in units of the standard deviation over seeds, corrected for small samples", pair.hedges_g),
        ("Cohen's d", "the same without the correction", pair.cohens_d),
    ):
        ends = f"{signed(estimate.low, 2)} to {signed(estimate.high, 2)}"
        text = explain(estimate.reason) if estimate.value is None else ends
        rows.append((title, note, estimate, signed(estimate.value, 2), text, reversed_))
    return rows


def own_axis(estimate: Estimate, reversed_: bool) -> Markup:
    """An interval on an axis of its own."""
    reach = 1.3 * max(abs(estimate.low or 0.0), abs(estimate.high or 0.0))
    return _interval(estimate, reach, reversed_, None)


def _interval(estimate: Estimate, reach: float, reversed_: bool, method: Method | None) -> Markup:
    value, low, high = estimate.value, estimate.low, estimate.high
    if reversed_ and value is not None and low is not None and high is not None:
        value, low, high = -value, -high, -low
    return inline_svg.interval_row(value, low, high, reach, method)


def axis_end(pairs: Sequence[Comparison]) -> float:
    """Half the width of the shared axis of effect sizes."""
    known = [abs(end) for pair in pairs for end in (pair.hedges_g.low, pair.hedges_g.high) if end is not None]
    return min(LONGEST_AXIS, 1.05 * max(known, default=1.0))


def _forest_row(findings: Findings, pair: Comparison, reach: float, several: bool) -> Markup:
    """Hedges g on the shared axis, reversed so that right is better for the other method."""
    method = findings.method(pair.treatment) if several else None
    return _interval(pair.hedges_g, reach, pair.metric.better == "less", method)


def _kind(findings: Findings, pair: Comparison) -> str:
    """Whether a metric decides, and which direction is better."""
    role = "headline, decides" if pair.metric.name == findings.declared.metric else "exploratory"
    direction = {"less": "; lower is better", "neither": "; no better direction", "more": ""}[pair.metric.better]
    return f"{role}{direction}"


def matrix_cell(findings: Findings, row: Method, column: Method) -> dict[str, str]:
    """Row minus column with its interval; tinted where the interval excludes zero."""
    pair = next((p for p in findings.pairs if {p.treatment, p.baseline} == {row.name, column.name}), None)
    if pair is None or row is column:
        return {"tint": "na", "text": "", "interval": ""}
    if findings.state_of(pair) == "incomplete":
        return {"tint": "na", "text": "n/a", "interval": "a run has no result"}
    estimate, metric = difference_from(row.name, pair), pair.metric
    tint, arrow = {1: ("up", "\N{BLACK UP-POINTING TRIANGLE} "), -1: ("dn", "\N{BLACK DOWN-POINTING TRIANGLE} ")}.get(
        _side(estimate, metric.better == "less"), ("", "")
    )
    return {"tint": tint, "text": f"{arrow}{metric.signed(estimate.value)}", "interval": tables.ends(metric, estimate)}


def _side(estimate: Estimate, reversed_: bool) -> int:
    """1 where the interval is on the better side of zero, -1 on the worse, 0 where it contains zero."""
    if estimate.low is None or estimate.high is None or estimate.low <= 0 <= estimate.high:
        return 0
    return 1 if (estimate.low > 0) != reversed_ else -1


SECTION = Section(name="effect", label="Difference", title="How big is the difference?", data=data, body=body)
