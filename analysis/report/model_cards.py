"""The verdict of a study in the model cards of its runs, between the marks that each run left for it."""

import re

from alignbench.core.metric_names import VERDICT

from ..findings import Findings

FOLDERS = ("final", "merged")
BETWEEN = re.compile(f"(?<={re.escape(VERDICT[0])}).*?(?={re.escape(VERDICT[1])})", re.DOTALL)


def tell_cards(findings: Findings) -> str | None:
    """Say the verdict in every card of the study, the same bytes each time. Returns why one could not be told."""
    study = findings.study
    said = f"{findings.verdict.sentence} The report: `{study.output_dir}/reports/{study.name}/report.md`"
    for run in study.runs:
        for card in (study.output_dir / run.folder / folder / "README.md" for folder in FOLDERS):
            try:
                text = card.read_text(encoding="utf-8")
                told = BETWEEN.sub(lambda _: said, text)
                if told != text:
                    card.write_text(told, encoding="utf-8")
            except FileNotFoundError:
                continue
            except OSError as error:
                return f"the verdict is not in {card}: {error.strerror}"
    return None
