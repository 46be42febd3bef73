"""The door of the analysis: words in, a report out, and an exit code that says how the study stands."""

import sys
from collections.abc import Sequence
from pathlib import Path

from alignbench.core.errors import UserError

KEYS = ("study", "baseline", "output_dir", "tracking_uri", "metric", "margin", "judge")
USAGE = """\
Write the comparison report of a study.

  python -m analysis study=NAME [key=value ...]

  study=NAME          the study, as named when it was run
  baseline=ppo        the method that the others are compared with
  metric=NAME         what decides (final/accuracy; final/avg_reward where nothing says what is correct)
  margin=0.02         differences within it do not matter, in units of the metric
  output_dir=outputs  where runs/, mlflow.db and reports/ are
  tracking_uri=URI    another MLflow store
  judge=none          judging by a language model is not available in this version

baseline, metric and margin default to what the runs declared under `analysis`.
Writes <output_dir>/reports/NAME/report.html, report.md, report.json and figures/.
Exit code: 0 complete, 2 wrong input, 3 a planned run has no result, 4 not comparable.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Write the report of a study and print its summary; returns the exit code."""
    given = list(sys.argv[1:] if words is None else words)
    if {"--help", "-h", "help"} & set(given):
        sys.stdout.write(USAGE)
        return 0
    try:
        return _report(_read(given))
    except UserError as error:
        sys.stderr.write(f"analysis: {error}\n")
        return 2


def _read(words: Sequence[str]) -> dict[str, str]:
    """key=value words as a mapping. Raises UserError for anything else."""
    known: dict[str, str] = {}
    for word in words:
        key, equals, value = word.lstrip("-").partition("=")
        if key not in KEYS or not equals:
            raise UserError(f"{word!r} is not understood; use key=value with one of {', '.join(KEYS)} (see --help).")
        known[key] = value
    if not known.get("study"):
        raise UserError("say which study: python -m analysis study=NAME (see --help).")
    if known.get("judge", "none") not in ("none", "null"):
        raise UserError(
            f"judge={known['judge']}: judging is not available in this version; leave it out or use judge=none."
        )
    return known


def _margin(text: str | None) -> float | None:
    if text in (None, "null", "none"):
        return None
    try:
        margin = float(text or "")
    except ValueError:
        raise UserError(f"margin={text}: not a number; write it in units of the metric, such as margin=0.02.") from None
    if not 0 < margin < float("inf"):
        raise UserError(f"margin={text}: a margin is above zero.")
    return margin


def _report(words: dict[str, str]) -> int:
    from .declared import Options
    from .findings import find  # heavy: not needed for --help or a mistyped word
    from .report import write_report
    from .terminal import print_summary

    options = Options(
        study=words["study"],
        output_dir=Path(words.get("output_dir", "outputs")),
        baseline=words.get("baseline"),
        tracking_uri=words.get("tracking_uri"),
        metric=words.get("metric"),
        margin=_margin(words.get("margin")),
    )
    findings = find(options)
    print_summary(findings, write_report(findings), sys.stdout)
    return findings.verdict.exit_code


if __name__ == "__main__":
    sys.exit(main())
