"""A journal knows its own past, and gives up what a crash left of a line."""

import logging
from pathlib import Path

import pytest

from alignbench.store.jsonl import JsonLines, has_prefix, read


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def test_a_journal_begins_as_it_was_marked_until_a_byte_of_that_changes(path: Path) -> None:
    journal = JsonLines(path)
    marks = [journal.prefix()]
    for step in range(3):
        journal.append({"phase": "rl", "step": step, "metrics": {"x": step / 3}})
        marks.append(journal.prefix())
    journal.close()
    assert [has_prefix(path, mark) for mark in marks] == [True] * 4
    data = bytearray(path.read_bytes())
    data[marks[2]["bytes"] - 5] ^= 1
    path.write_bytes(data)
    assert [has_prefix(path, mark) for mark in marks] == [True, True, False, False]
    path.write_bytes(data[: marks[1]["bytes"] - 1])
    assert [has_prefix(path, mark) for mark in marks] == [True, False, False, False]
    path.unlink()
    assert not has_prefix(path, marks[0])
    assert not has_prefix(path, None)


def test_what_is_cut_leaves_every_byte_before_it(path: Path) -> None:
    journal = JsonLines(path)
    for step, value in enumerate((0.1, 1e22, -0.0, 1 / 3, 5e-324)):
        journal.append({"phase": "rl", "step": step, "metrics": {"é/\u2028": value}})
        if step == 3:
            mark = journal.prefix()
    journal.cut("rl", 3)
    assert journal.prefix() == mark


def test_what_a_killed_process_wrote_is_read_up_to_its_last_whole_line(path: Path) -> None:
    path.write_text('{"step": 0}\n{"step": 1}\n{"step": 2')
    assert [record["step"] for record in read(path)] == [0, 1]
    path.write_text('{"step": 0\n{"step": 1}\n')
    with pytest.raises(ValueError, match="Expecting"):
        list(read(path))


@pytest.mark.parametrize("damaged", ['{"step": 1, "met', "\0\0\0\n", '{"step": 1\n', "[1]\n", "\udcff\n"])
def test_damaged_lines_are_dropped_with_a_warning(path: Path, damaged: str, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text('{"step": 0}\n' + damaged, encoding="utf-8", errors="surrogateescape")
    with caplog.at_level(logging.WARNING):
        journal = JsonLines(path)
    assert f"{path}: damaged lines are dropped (1)" in caplog.text
    journal.append({"step": 1})
    journal.close()
    assert list(read(path)) == [{"step": 0}, {"step": 1}]
