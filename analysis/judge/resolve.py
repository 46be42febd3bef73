"""Whether a judge is asked: the command line says first, then what the runs declared."""

from collections.abc import Sequence

from alignbench.core.errors import UserError

from ..study.load import Study
from .judgement import Judgement, judge_study
from .panel import add_second_judge, judge_from_config, parse_judges
from .session import Log


def resolve_judgement(study: Study, methods: list[str], words: Sequence[str], log: Log) -> Judgement | None:
    """The judgement that words such as judge=gpt4o_mini ask for, else the one that the runs' configs declare.

    What was typed and cannot be done raises UserError; what was declared and cannot be done is told in the report,
    which is written all the same.
    """
    if words:
        typed = parse_judges(words)
        return None if typed is None else judge_study(study, methods, typed, log)
    judges = [judge for run in study.runs if (judge := judge_from_config(run.config.get("judge"))) is not None]
    if not judges:
        return None
    try:
        return judge_study(study, methods, add_second_judge(judges[0]), log)
    except UserError as error:
        return Judgement(judge=judges[0], reason=str(error).rstrip("."))
