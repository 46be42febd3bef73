"""Unusual text of any size and batches of any shape: no exception, no slow parsing, no changed token."""

import json
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import SMALL, config, lines, run_small, status

from alignbench.core.batches import Sequences, sequences
from alignbench.data.boxed import extract_boxed
from alignbench.data.genrm import parse_score
from alignbench.kernels.sequence_packing import pad_sequences
from alignbench.rewards.extract import flexible, gold, number, strict
from alignbench.runs.pipeline import run
from alignbench.store.jsonl import JsonLines, decode_metrics, encode_metrics, read
from alignbench.store.state_serialization import pack, unpack

SLOW = settings(max_examples=60, deadline=None)
MEGABYTES = {
    "digits": "7" * 1_000_000,
    "commas": "1,000" * 200_000,
    "minus": "-" * 1_000_000,
    "open braces": "\\boxed{" * 100_000,
    "braces": "\\boxed{" + "{" * 250_000 + "}" * 250_000,
    "marks": "#### " * 200_000,
    "spaces": " " * 1_000_000,
    "nul": "\0" * 1_000_000,
    "emoji": "\U0001f600" * 250_000,
    "number, then spaces": "5" + " " * 1_000_000,
    "score": "Score: " * 150_000,
    "spaced digits": "1 000 " * 150_000,
    "dots": "1." * 250_000,
}
READERS: tuple[Callable[[str], object], ...] = (strict, flexible, gold, number, extract_boxed, parse_score)


@SLOW
@given(st.text())
def test_answer_extractors_accept_any_text(text: str) -> None:
    for reader in READERS:
        found = reader(text)
        assert found is None or isinstance(found, str | float) or (isinstance(found, Decimal) and found.is_finite())


@pytest.mark.parametrize("text", MEGABYTES.values(), ids=MEGABYTES)
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_answer_extractors_read_megabytes_within_seconds(reader: Callable[[str], object], text: str) -> None:
    began = time.process_time()
    reader(text)
    assert time.process_time() - began < 3


@SLOW
@given(st.text(), st.integers(-(10**12), 10**12))
def test_the_number_after_the_mark_is_found_after_any_text(before: str, value: int) -> None:
    assert strict(f"{before}#### {value}") == value
    assert flexible(f"{before}\n#### {value:,}") == value


@SLOW
@given(st.text(), st.text(alphabet=st.characters(exclude_characters="\\{}")), st.text(alphabet="abc .,\n\0é"))
def test_the_content_of_the_box_is_found_within_any_text(before: str, content: str, after: str) -> None:
    before = before.replace("\\", "")
    assert extract_boxed(f"{before}\\boxed{{{content}{{{content}}}}}{after}") == f"{content}{{{content}}}".strip()


TOKENS = st.lists(st.integers(1, 99), max_size=7)
BATCH = st.lists(st.tuples(TOKENS.filter(bool), TOKENS), min_size=1, max_size=6)


@SLOW
@given(BATCH, st.randoms(use_true_random=False))
def test_padding_changes_no_token_and_masks_count_each_token_once(rows: list, rng: object) -> None:
    batch = sequences([prompt for prompt, _ in rows], [response for _, response in rows], pad=0)
    assert unpadded(batch) == rows
    assert batch.lengths().tolist() == [len(prompt) + len(response) for prompt, response in rows]
    order = list(range(len(rows)))
    rng.shuffle(order)
    assert unpadded(batch[torch.tensor(order)]) == [rows[i] for i in order]


@SLOW
@given(BATCH.filter(lambda rows: any(response for _, response in rows)))
def test_each_response_token_is_predicted_by_the_one_before_it(rows: list) -> None:
    batch = sequences([prompt for prompt, _ in rows], [response for _, response in rows], pad=0)
    read_as = pad_sequences(batch, 0)
    for i, (prompt, response) in enumerate(rows):
        row = read_as.input_ids[read_as.row[i]].tolist()
        at = read_as.predictors[i][batch.mask[i]].tolist()
        assert row[: len(prompt)] == prompt
        assert [row[place] for place in at] == [prompt[-1], *response][: len(response)]


def unpadded(batch: Sequences) -> list[tuple[list[int], list[int]]]:
    """The rows of a batch without their padding, by its lengths and its mask."""
    return [
        (p[len(p) - k :].tolist(), r[m].tolist())
        for p, k, r, m in zip(batch.prompts, batch.prompt_lengths.tolist(), batch.responses, batch.mask, strict=True)
    ]


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
NESTED = st.recursive(
    PLAIN | st.lists(st.floats(width=32, allow_nan=False), max_size=4).map(torch.tensor),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@SLOW
@given(st.dictionaries(st.text(), NESTED, max_size=3))
def test_a_checkpoint_restores_any_state(tmp_path_factory: pytest.TempPathFactory, payload: dict) -> None:
    path = tmp_path_factory.getbasetemp() / "packed"
    pack(payload, path)
    assert same(unpack(path), payload)


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple) and type(one) is type(other):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@SLOW
@given(st.dictionaries(st.text(), st.floats(), max_size=4))
def test_a_metrics_file_restores_any_names_and_numbers(
    tmp_path_factory: pytest.TempPathFactory, metrics: dict[str, float]
) -> None:
    path = tmp_path_factory.getbasetemp() / "journal.jsonl"
    path.unlink(missing_ok=True)
    journal = JsonLines(path)
    journal.append({"phase": "rl", "step": 1, **encode_metrics(metrics)})
    journal.close()
    (record,) = read(path)
    assert {name: repr(value) for name, value in decode_metrics(record).items()} == {
        n: repr(v) for n, v in metrics.items()
    }


STRANGE = (
    "NUL \0 inside",
    "\u202eright to left\u202c",
    "\U0001f600\ufeff zero\u200bwidth",
    "e\u0301 and \u00e9",
    "tab\tand\x0bmore",
    "line\u2028separator and\x85next",
    "</script><script>alert(1)</script>",
    "{not} a {template}",
    "x" * 900,
    "1",
)


def test_a_run_keeps_unusual_questions_unchanged(tmp_path: Path) -> None:
    rows = [{"question": f"{text} number {n}?", "answer": f"{text}\n#### {n}"} for n in range(4) for text in STRANGE]
    path = tmp_path / "strange.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    small = [word for word in SMALL if not word.startswith("data.")]
    overrides = [
        "data=gsm8k",
        f"data.path={path}",
        "data.train_rows=24",
        "data.validation_rows=4",
        "data.test_rows=4",
        "model.context=4096",
        "rl.max_prompt_tokens=2048",
        "tracking.enabled=false",
        f"output_dir={tmp_path}/out",
    ]
    run(config(*small, *overrides))
    (folder,) = (tmp_path / "out" / "runs" / "single").iterdir()
    assert status(folder)["status"] == "finished"
    prompts = [row["prompt"] for row in lines(folder / "eval.jsonl")]
    assert len(prompts) == 4
    assert all(any(row["question"] in prompt for row in rows) for prompt in prompts)


SECRETS = {
    "HF_TOKEN": "hf_secretsecretsecretsecretsecret12",
    "OPENAI_API_KEY": "sk-secret-of-the-judge-0123456789",
    "MLFLOW_TRACKING_PASSWORD": "secret-of-the-tracker",
}


def test_the_use_of_custom_code_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text("def fn(prompts, completions):\n    return [float(len(c)) for c in completions]")
    where = f"{tmp_path}/mine.py:fn"
    run_small(tmp_path, "reward=custom", f"reward.function={where}")
    assert f"reward: {where} is custom code" in capfd.readouterr().out


def test_no_secret_of_the_environment_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    run_small(tmp_path / "good", "judge=gpt4o_mini")
    with pytest.raises(Exception, match="learning rate"):
        run_small(tmp_path / "bad", "sft.optimizer.learning_rate=1e30", "sft.optimizer.warmup_steps=0", "sft.steps=4")
    out, err = capfd.readouterr()
    written = [out.encode(), err.encode(), *(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())]
    assert len(written) > 20
    for name, value in SECRETS.items():
        assert not [text for text in written if value.encode() in text], f"{name} was written"
