"""The door of the analysis: words in, a report out, and an exit code that says how the study stands."""

import sys
from collections.abc import Sequence
from pathlib import Path

from alignbench.core.cli_args import parse_key_values, read_arguments
from alignbench.core.errors import UserError

KEYS = ("study", "baseline", "output_dir", "tracking_uri", "metric", "margin", "judge")
JUDGES = ("judge.", "second.")
USAGE = """\
Write the comparison report of a study.

  python -m analysis study=NAME [key=value ...]

  study=NAME          the study, as named when it was run
  baseline=ppo        the method that the others are compared with
  metric=NAME         what decides (final/gold where true quality is known, else accuracy, else avg_reward)
  margin=0.02         differences within it do not matter, in units of the metric
  output_dir=outputs  where runs/, mlflow.db and reports/ are
  tracking_uri=URI    another MLflow store
  judge=gpt4o_mini    let a language model compare the answers, two by two: an option of conf/judge
                      (none, gpt4o_mini, gpt6_luna, openai_compatible)
  judge.KEY=VALUE     a key of that option, such as judge.max_dollars=1 or judge.mode=cache_only
  second.KEY=VALUE    the same for the second judge that judge.second=OPTION names

baseline, metric and margin default to what the runs declared under `analysis`, the judge to their `judge`.
Writes <output_dir>/reports/NAME/report.html, report.md, report.json and figures/, and attaches the report to a run
named `report NAME` where MLflow has the study; the model cards beside the runs' weights get the verdict.
Exit code: 0 complete, 2 wrong input, 3 a planned run has no result, 4 not comparable.
"""


def main(words: Sequence[str] | None = None) -> int:
    """Write the report of a study and print its summary; returns the exit code."""
    given = read_arguments(words, USAGE)
    if given is None:
        return 0
    try:
        return _report(_read(given))
    except UserError as error:
        sys.stderr.write(f"analysis: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; what a judge said is kept, the same command goes on\n")
        return 130


def _read(words: Sequence[str]) -> dict[str, str]:
    """key=value words as a mapping. Raises UserError for anything else."""
    known = parse_key_values(words, KEYS, JUDGES)
    if not known.get("study"):
        raise UserError("say which study: python -m analysis study=NAME (see --help).")
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


def _tell(text: str) -> None:
    """A line about how far it is; what is the result goes to stdout."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _report(words: dict[str, str]) -> int:
    from .findings import find  # heavy: not needed for --help or a mistyped word
    from .report.mlflow_upload import publish
    from .report.model_cards import tell_cards
    from .report.terminal import print_summary
    from .report.write import write_report
    from .study.options import Options

    options = Options(
        study=words["study"],
        output_dir=Path(words.get("output_dir", "outputs")),
        baseline=words.get("baseline"),
        tracking_uri=words.get("tracking_uri"),
        metric=words.get("metric"),
        margin=_margin(words.get("margin")),
        judge=tuple(f"{key}={value}" for key, value in words.items() if key == "judge" or key.startswith(JUDGES)),
    )
    findings = find(options, _tell)
    page = write_report(findings)
    for trouble in (publish(findings, page.parent, options.tracking_uri), tell_cards(findings)):
        if trouble:
            _tell(f"warning: {trouble}")
    print_summary(findings, page, sys.stdout)
    return findings.verdict.exit_code


if __name__ == "__main__":
    sys.exit(main())
