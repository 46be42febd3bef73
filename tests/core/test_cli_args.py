"""Parsing of command-line arguments."""

import pytest

from alignbench.core.cli_args import parse_key_values, read_arguments
from alignbench.core.errors import UserError


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_is_printed_and_nothing_else_happens(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_arguments(["run=x", word], "How to.\n") is None
    assert capsys.readouterr().out == "How to.\n"


def test_arguments_default_to_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["door", "run=x"])
    assert read_arguments(None, "") == ["run=x"]
    assert read_arguments([], "") == []


def test_values_can_contain_any_character_and_the_last_one_wins() -> None:
    assert parse_key_values(["run=a", "--to=b=c", "run="], ("run", "to")) == {"run": "", "to": "b=c"}
    assert parse_key_values(["judge.model=m"], ("judge",), ("judge.",)) == {"judge.model": "m"}


@pytest.mark.parametrize("word", ["run", "rum=x", "=x", "judge.model=m", ""])
def test_an_unknown_key_is_named(word: str) -> None:
    with pytest.raises(UserError, match="is not understood; .*use key=value with one of run, to"):
        parse_key_values([word], ("run", "to"))
