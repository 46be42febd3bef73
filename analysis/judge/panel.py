"""Selects the judge and second judge: from command-line overrides of conf/judge, or from a config of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from alignbench.core.errors import UserError
from alignbench.core.judge_settings import Judge

CONF = Path(__file__).parents[2] / "conf"  # in a checkout and in a wheel alike
TARGET = f"{Judge.__module__}.{Judge.__qualname__}"


@dataclass(frozen=True)
class Panel:
    """The judge, and optionally a second judge to measure agreement."""

    judge: Judge
    second: Judge | None = None


def parse_judges(overrides: Sequence[str]) -> Panel | None:
    """Parse overrides such as judge=gpt4o_mini, judge.max_dollars=1 and second.base_url=...

    Overrides that begin with `second.` change the option that judge.second names. None for judge=none and for no
    overrides. Raises UserError for an invalid override.
    """
    chosen = [override.partition("=")[2] for override in overrides if override.startswith("judge=")]
    if not chosen:
        if overrides:
            raise UserError(f"{overrides[0]}: choose a judge with judge=OPTION, one of {', '.join(list_options())}.")
        return None
    judge = compose_judge(
        "none" if chosen[-1] == "null" else chosen[-1], [o for o in overrides if o.startswith("judge.")]
    )
    return None if judge is None else add_second_judge(judge, [o for o in overrides if o.startswith("second.")])


def add_second_judge(judge: Judge, overrides: Sequence[str] = ()) -> Panel:
    """The judge together with the second judge that judge.second names."""
    if judge.second is None:
        if overrides:
            raise UserError(f"{overrides[0]}: no second judge is configured; set judge.second=OPTION.")
        return Panel(judge)
    return Panel(
        judge, compose_judge(judge.second, [f"judge.{override.removeprefix('second.')}" for override in overrides])
    )


def list_options() -> list[str]:
    """The options of the config group `judge`."""
    return sorted(file.stem for file in (CONF / "judge").glob("*.yaml"))


def compose_judge(option: str, overrides: Sequence[str] = ()) -> Judge | None:
    """Compose an option of conf/judge with overrides such as judge.max_dollars=1; None for `none`.

    Raises UserError for an unknown option or key, and for an invalid value.
    """
    if option not in list_options():
        raise UserError(f"judge={option}: unknown option; choose one of {', '.join(list_options())}.")
    from alignbench.runs.compose import compose_groups  # imports Hydra: not needed without a judge

    return judge_from_config(compose_groups({"judge": option}, overrides)["judge"])


def judge_from_config(section: Any) -> Judge | None:
    """Build the judge from a config section `judge`; None if the section is missing or declares no judge."""
    if not isinstance(section, Mapping) or section.get("_target_") != TARGET:
        return None
    values = {str(key): value for key, value in section.items() if key != "_target_" and value != "???"}
    try:
        return TypeAdapter(Judge).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["judge", *map(str, first["loc"])])
        if first["type"] == "missing":
            raise UserError(f"{key} is not set; set it with {key}=...") from error
        raise UserError(f"{key}={first['input']!r}: {first['msg']}") from error
