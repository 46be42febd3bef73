"""The statistical terms of the report, in one sentence each; in the HTML page only."""

from collections.abc import Sequence

from ...findings import Findings
from ...plots.charts import Chart
from ..section import Block, Section, Template


def terms(findings: Findings) -> list[tuple[str, str]]:
    """Term and explanation, for the terms that this report uses."""
    margin = findings.declared.margin
    inner = (
        "The thick part is the interval of the equivalence test."
        if margin
        else "The thick part is the 50% interval, which contains the true value in half of all studies."
    )
    found = [
        ("Point", "One percentage point: from 62% to 63% correct is one point."),
        (
            "Seed",
            "One complete training run with its own random numbers. Training is repeated over seeds, not over prompts, "
            "so the uncertainty is about seeds.",
        ),
        (
            "95% interval",
            "The range of true differences compatible with the data. If it contains zero, the study does not show "
            f"which method is better. {inner}",
        ),
        (
            "Inconclusive",
            "Not the same as equal: the study was too small to decide. Equivalence requires the 90% interval to lie "
            f"within a margin declared before the runs{'' if margin else ' (none was declared)'}.",
        ),
        (
            "Smallest detectable difference",
            "The true difference that a study of this size finds with 80% power. Smaller differences are usually "
            "missed, and overestimated when found.",
        ),
        (
            "Hedges g, Cohen's d",
            "The difference divided by the pooled standard deviation over seeds, which puts metrics with different "
            "units on one axis. g is d corrected for small samples. With few seeds, noise alone often produces large "
            "values, so the report does not label them small, medium or large.",
        ),
        (
            "Permutation p, floor",
            "The share of permutations of the method labels with a difference at least as large. Few seeds have few "
            "permutations, so p cannot be below its floor.",
        ),
        (
            "KL",
            "The divergence of the trained model from the SFT model, in nats per answer. At equal reward, less is "
            "better.",
        ),
    ]
    if findings.over_optimization:
        found.append(
            (
                "Proxy, gold, over-optimization",
                "The proxy is the reward used in training; gold is the true quality that it approximates. Optimized "
                "too far, a method finds answers with a high proxy and a low quality: the proxy rises and gold falls.",
            )
        )
    unjudged = "" if findings.judgement else " Nothing here was judged by a language model."
    scope = f"Whether the result holds for another model, task, budget or amount of tuning.{unjudged}"
    return [*found, ("Not covered by this report", scope)]


def body(findings: Findings, charts: Sequence[Chart]) -> list[Block]:
    """A list of definitions."""
    return [Template(name="glossary", values={"terms": terms(findings)})]


SECTION = Section(name="read", label="How to read", title="How to read this report", body=body)
