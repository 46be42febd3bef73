"""JSON lines files recognize a prefix, are cut and followed, and drop lines that a crash damaged."""

import logging
from pathlib import Path

import pytest

from alignbench.store.jsonl import FileReplaced, JsonLines, Tail, has_prefix, read


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def test_a_prefix_is_recognized_until_one_of_its_bytes_changes(path: Path) -> None:
    file = JsonLines(path)
    prefixes = [file.prefix()]
    for step in range(3):
        file.append({"phase": "rl", "step": step, "metrics": {"x": step / 3}})
        prefixes.append(file.prefix())
    file.close()
    assert [has_prefix(path, prefix) for prefix in prefixes] == [True] * 4
    data = bytearray(path.read_bytes())
    data[prefixes[2]["bytes"] - 5] ^= 1
    path.write_bytes(data)
    assert [has_prefix(path, prefix) for prefix in prefixes] == [True, True, False, False]
    path.write_bytes(data[: prefixes[1]["bytes"] - 1])
    assert [has_prefix(path, prefix) for prefix in prefixes] == [True, False, False, False]
    path.unlink()
    assert not has_prefix(path, prefixes[0])
    assert not has_prefix(path, None)


def test_cutting_keeps_every_byte_before(path: Path) -> None:
    file = JsonLines(path)
    for step, value in enumerate((0.1, 1e22, -0.0, 1 / 3, 5e-324)):
        file.append({"phase": "rl", "step": step, "metrics": {"é/\u2028": value}})
        if step == 3:
            prefix = file.prefix()
    file.cut("rl", 3)
    assert file.prefix() == prefix


def test_an_incomplete_last_line_is_not_read(path: Path) -> None:
    path.write_text('{"step": 0}\n{"step": 1}\n{"step": 2')
    assert [record["step"] for record in read(path)] == [0, 1]
    path.write_text('{"step": 0\n{"step": 1}\n')
    with pytest.raises(ValueError, match="Expecting"):
        list(read(path))


def test_a_tail_reads_complete_lines_once_and_notices_a_cut(path: Path) -> None:
    tail = Tail(path)
    assert tail.read() == []
    path.write_bytes(b'{"step": 0}\n{"step": 1}\n{"st')
    assert tail.read() == [{"step": 0}, {"step": 1}]
    with path.open("ab") as file:
        file.write(b'ep": 2}\n')
    assert tail.read() == [{"step": 2}]
    assert tail.read() == []
    path.write_text("".join(f'{{"phase": "rl", "step": {step}}}\n' for step in range(6)))
    JsonLines(path).cut("rl", 1)
    with pytest.raises(FileReplaced):
        tail.read()
    assert [record["step"] for record in Tail(path).read()] == [0, 1]


@pytest.mark.parametrize("damaged", ['{"step": 1, "met', "\0\0\0\n", '{"step": 1\n', "[1]\n", "\udcff\n"])
def test_damaged_lines_are_dropped_with_a_warning(path: Path, damaged: str, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text('{"step": 0}\n' + damaged, encoding="utf-8", errors="surrogateescape")
    with caplog.at_level(logging.WARNING):
        file = JsonLines(path)
    assert f"{path}: damaged lines are dropped (1)" in caplog.text
    file.append({"step": 1})
    file.close()
    assert list(read(path)) == [{"step": 0}, {"step": 1}]
