"""Entry point of the analysis: writes the report of a study; the exit code is the state of the study."""

import sys
from collections.abc import Sequence
from pathlib import Path

from alignbench.core.cli_args import parse_key_values, read_arguments
from alignbench.core.errors import UserError

KEYS = ("study", "baseline", "output_dir", "tracking_uri", "metric", "margin", "judge")
JUDGES = ("judge.", "second.")
USAGE = """\
Write the comparison report of a study.

  alignbench report study=NAME [key=value ...]
  python -m analysis study=NAME [key=value ...]     the same command

  study=NAME          name of the study (required)
  baseline=ppo        method that the others are compared with
  metric=NAME         headline metric (default: final/gold if measured, else final/accuracy, else final/avg_reward)
  margin=0.02         equivalence margin, in units of the metric
  output_dir=outputs  folder with runs/, mlflow.db and reports/
  tracking_uri=URI    MLflow store (default: that of the runs)
  judge=gpt4o_mini    LLM judge that compares the answers in pairs, an option of conf/judge
                      (none, gpt4o_mini, gpt6_luna, openai_compatible)
  judge.KEY=VALUE     setting of the judge, such as judge.max_dollars=1 or judge.mode=cache_only
  second.KEY=VALUE    setting of the second judge, chosen with judge.second=OPTION

baseline, metric, margin and judge default to the config of the runs (`analysis` and `judge`).
Writes report.html, report.md, report.json and figures/ to <output_dir>/reports/NAME/. Attaches the report to the MLflow
run `report NAME` if the study is in MLflow, and writes the verdict into the model cards of the runs.
Exit code: 0 complete, 2 invalid input, 3 a planned run has no result, 4 not comparable.
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
        sys.stderr.write("interrupted; the judge's replies are cached, repeat the command to resume\n")
        return 130


def _read(words: Sequence[str]) -> dict[str, str]:
    """Parse key=value arguments. Raises UserError for anything else."""
    known = parse_key_values(words, KEYS, JUDGES)
    if not known.get("study"):
        raise UserError("study=NAME is required (see --help).")
    return known


def _margin(text: str | None) -> float | None:
    if text in (None, "null", "none"):
        return None
    try:
        margin = float(text or "")
    except ValueError:
        raise UserError(f"margin={text}: not a number; use units of the metric, such as margin=0.02.") from None
    if not 0 < margin < float("inf"):
        raise UserError(f"margin={text}: must be above zero and finite.")
    return margin


def _log(text: str) -> None:
    """Write a progress message to stderr; results go to stdout."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _report(words: dict[str, str]) -> int:
    from .findings import find  # imported here: --help and input errors need no heavy imports
    from .report.mlflow_upload import publish
    from .report.model_cards import update_model_cards
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
    findings = find(options, _log)
    page = write_report(findings)
    for problem in (publish(findings, page.parent, options.tracking_uri), update_model_cards(findings)):
        if problem:
            _log(f"warning: {problem}")
    print_summary(findings, page, sys.stdout)
    return findings.verdict.exit_code


if __name__ == "__main__":
    sys.exit(main())
