"""Writes the verdict of a study into the model cards of its runs, between the markers in each card."""

import re

from alignbench.core.metric_names import VERDICT

from ..findings import Findings

FOLDERS = ("final", "merged")
BETWEEN = re.compile(f"(?<={re.escape(VERDICT[0])}).*?(?={re.escape(VERDICT[1])})", re.DOTALL)


def update_model_cards(findings: Findings) -> str | None:
    """Write the verdict into every model card of the study. Returns an error message if one cannot be written."""
    study = findings.study
    verdict = f"{findings.verdict.sentence} The report: `{study.output_dir}/reports/{study.name}/report.md`"
    for run in study.runs:
        for card in (study.output_dir / run.folder / folder / "README.md" for folder in FOLDERS):
            try:
                text = card.read_text(encoding="utf-8")
                updated = BETWEEN.sub(lambda _: verdict, text)
                if updated != text:
                    card.write_text(updated, encoding="utf-8")
            except FileNotFoundError:
                continue
            except OSError as error:
                return f"the verdict could not be written to {card}: {error.strerror}"
    return None
