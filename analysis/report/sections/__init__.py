"""The sections of the report, in order; each registers its data, text, tables and figures in one module.

How to add a statistic or a plot:

1. Write `sections/<name>.py` with `SECTION = Section(name=..., label=..., title=..., data=..., charts=..., body=...)`.
   `data(findings)` returns keys of report.json, `charts(findings)` a list of `Chart` (see plots/charts.py), and
   `body(findings, charts)` a list of blocks: `Text`, `Heading`, `Table`, `Figures` (see report/section.py).
   A section of charts only needs no `body`.
2. Add `<name>.SECTION` to `SECTIONS` below. report.json, report.md, report.html, figures/ and, with `terminal=`, the
   terminal summary then contain it; no template changes.

A statistic that fits an existing section goes into that module alone.
"""

from ..section import Section
from . import (
    cost,
    effect,
    fairness,
    glossary,
    judge,
    kl,
    learning,
    overoptimization,
    reward_model,
    runs,
    samples,
    seeds,
    strata,
    verdict,
    warnings,
)

SECTIONS: tuple[Section, ...] = (
    verdict.SECTION,
    warnings.SECTION,
    effect.SECTION,
    seeds.SECTION,
    strata.SECTION,
    learning.SECTION,
    overoptimization.SECTION,
    reward_model.SECTION,
    kl.SECTION,
    cost.SECTION,
    judge.SECTION,
    fairness.SECTION,
    samples.SECTION,
    runs.SECTION,
    glossary.SECTION,
)
