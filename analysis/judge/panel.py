"""Which judge: an option of conf/judge changed by the words of the command line, or what the runs declared."""

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
    """The judge, and the second one that shows whether two judges agree."""

    judge: Judge
    second: Judge | None = None


def parse_judges(words: Sequence[str]) -> Panel | None:
    """The judges that words such as judge=gpt4o_mini, judge.max_dollars=1 and second.base_url=... ask for.

    Words that begin with `second.` change the option that judge.second names. None for judge=none and for no words.
    """
    chosen = [word.partition("=")[2] for word in words if word.startswith("judge=")]
    if not chosen:
        if words:
            raise UserError(f"{words[0]}: say which judge with judge=OPTION, one of {', '.join(options())}.")
        return None
    judge = compose_judge("none" if chosen[-1] == "null" else chosen[-1], [w for w in words if w.startswith("judge.")])
    return None if judge is None else add_second_judge(judge, [w for w in words if w.startswith("second.")])


def add_second_judge(judge: Judge, words: Sequence[str] = ()) -> Panel:
    """A judge with the second one that it names."""
    if judge.second is None:
        if words:
            raise UserError(f"{words[0]}: there is no second judge; name one with judge.second=OPTION.")
        return Panel(judge)
    return Panel(judge, compose_judge(judge.second, [f"judge.{word.removeprefix('second.')}" for word in words]))


def options() -> list[str]:
    """The options of the config group `judge`."""
    return sorted(file.stem for file in (CONF / "judge").glob("*.yaml"))


def compose_judge(option: str, words: Sequence[str] = ()) -> Judge | None:
    """An option of conf/judge, changed by words such as judge.max_dollars=1; None for `none`.

    Raises UserError for an option, a key or a value that there is not.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    if option not in options():
        raise UserError(f"judge={option}: no such option; choose one of {', '.join(options())}.")
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            node = hydra_compose(config_name=f"judge/{option}", overrides=list(words)).judge
    except HydraException as error:
        told = str(error).partition("\n")[0].rstrip(".")
        raise UserError(f"judge={option}: {told}. Its keys stand in conf/judge/{option}.yaml.") from error
    return judge_from_config(OmegaConf.to_container(node, resolve=True))


def judge_from_config(section: Any) -> Judge | None:
    """The judge of a config section `judge`; None where it is another class or none at all."""
    if not isinstance(section, Mapping) or section.get("_target_") != TARGET:
        return None
    given = {str(key): value for key, value in section.items() if key != "_target_" and value != "???"}
    try:
        return TypeAdapter(Judge).validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["judge", *map(str, first["loc"])])
        if first["type"] == "missing":
            raise UserError(f"{key} is not set; give it with {key}=...") from error
        raise UserError(f"{key}={first['input']!r}: {first['msg']}") from error
