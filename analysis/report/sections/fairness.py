"""Fairness of the comparison: checks with their evidence, the budget, and the configuration keys that differ."""

from collections.abc import Sequence
from typing import Any

from ...findings import Findings
from ...plots.charts import Chart
from ...study.metrics import counted
from ..section import Block, Cell, Heading, Section, Table, Template, Text

LONGEST = 60
"""Characters of a configuration value."""


def data(findings: Findings) -> dict[str, Any]:
    """Checks, violations, allowed differences and budget."""
    fairness = findings.fairness
    return {
        "fairness": {
            "ok": fairness.ok,
            "allowed_differences": [
                {"key": d.key, "values": d.values, "why": d.allowed} for d in fairness.differences if d.allowed
            ],
            "violations": fairness.violations,
            "checks": [{"name": c.name, "outcome": c.outcome, "evidence": c.evidence} for c in fairness.checks],
            "budget": {row.quantity: {**row.totals, "matched": row.matched} for row in fairness.ledger},
        }
    }


def caption(findings: Findings) -> str:
    """How many checks passed."""
    fairness = findings.fairness
    passed, whole = fairness.count("ok"), len(fairness.checks)
    others = [
        counted(fairness.count("failed"), "failure") if fairness.count("failed") else "",
        counted(fairness.count("warning"), "warning") if fairness.count("warning") else "",
        f"{fairness.count('unknown')} not known" if fairness.count("unknown") else "",
    ]
    rest = "; ".join(part for part in others if part)
    start = "Yes" if fairness.ok and not rest else "No failed check" if fairness.ok else "No"
    end = "" if fairness.ok else " A failed check withholds the verdict."
    return f"{start}: {passed} of {whole} checks passed{f'; {rest}' if rest else ''}.{end}"


def body(findings: Findings, charts: Sequence[Chart]) -> list[Block]:
    """Checks, budget and configuration."""
    return [
        Text(text=caption(findings), style="lede"),
        Template(name="fairness"),
        Heading(text="Budget (all seeds of a method together)"),
        _budget(findings),
        Heading(text="Configuration: which keys differ?"),
        _configuration(findings),
    ]


def _budget(findings: Findings) -> Table:
    names = [method.name for method in findings.methods]
    colors = {True: "ok", False: "bad"}
    rows: list[list[str | Cell]] = [
        [
            row.quantity,
            *(row.totals[name] for name in names),
            Cell(text=row.matched, style="mut" if row.ok is None else colors[row.ok]),
        ]
        for row in findings.fairness.ledger
    ]
    columns = ["quantity", *(method.label for method in findings.methods), "matched?"]
    return Table(label="Budget", columns=columns, rows=rows, left=(len(names) + 1,))


def _configuration(findings: Findings) -> Table | Text:
    fairness = findings.fairness
    if not fairness.differences:
        text = f"None of {fairness.keys} keys differ." if fairness.keys else "n/a: no run has a config.yaml."
        return Text(text=text, style="mut")
    rows: list[list[str | Cell]] = [
        [
            f"`{found.key}`",
            *(_value(found.values[method.name]) for method in findings.methods),
            Cell(text=found.allowed or "not allowed", style="mut" if found.allowed else "bad"),
        ]
        for found in fairness.differences
    ]
    caption = (
        f"{len(fairness.differences)} of {fairness.keys} keys differ. A difference must belong to the method or be "
        "listed in analysis.allow."
    )
    columns = ["key", *(method.label for method in findings.methods), "why it may differ"]
    return Table(
        label="Configuration differences", columns=columns, rows=rows, caption=caption, left=(len(rows[0]) - 1,)
    )


def _value(value: str) -> Cell:
    return Cell(text=value, style="mut") if value == "not used" else Cell(text=f"`{value[:LONGEST].replace('`', ' ')}`")


SECTION = Section(name="fairness", label="Fairness", title="Was the comparison fair?", data=data, body=body)
