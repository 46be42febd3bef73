"""Runs the judge that the command line or the configs of the runs declare."""

from collections.abc import Sequence

from alignbench.core.errors import UserError

from ..study.load import Study
from .judgement import Judgement, judge_study
from .panel import add_second_judge, judge_from_config, parse_judges
from .session import Log


def resolve_judgement(study: Study, methods: list[str], overrides: Sequence[str], log: Log) -> Judgement | None:
    """Judge the study with the judge of the overrides (judge=gpt4o_mini ...), else with the one that the runs declare.

    Raises UserError if a judge from the command line fails. A declared judge that fails does not stop the report: its
    error is the `reason` of the returned judgement. None without a judge.
    """
    if overrides:
        panel = parse_judges(overrides)
        return None if panel is None else judge_study(study, methods, panel, log)
    judges = [judge for run in study.runs if (judge := judge_from_config(run.config.get("judge"))) is not None]
    if not judges:
        return None
    try:
        return judge_study(study, methods, add_second_judge(judges[0]), log)
    except UserError as error:
        return Judgement(judge=judges[0], reason=str(error).rstrip("."))
