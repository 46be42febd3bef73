"""The stream of prompts: one order for all batch sizes, resumable at any point, no truncation."""

from collections import Counter
from itertools import islice

import pytest
from small_runs import config

from alignbench.core.errors import UserError
from alignbench.data.prompt_stream import PromptStream, iterate_once
from alignbench.models.text import Text
from alignbench.runs.pipeline import Pipeline
from alignbench.runs.settings import build, identify, resolve

ROWS = tuple({"id": f"r{i}", "prompt": "x" * (1 + i % 4)} for i in range(10))


def encode(text):
    return [ord(character) for character in text]


def stream(prompts_per_step=3, seed=42, rows=ROWS, limit=8):
    return PromptStream(rows, encode, prompts_per_step, seed, 0, limit)


def ids(prompts, count, seen=0):
    batches = prompts.after(seen)
    found = []
    while len(found) < count:
        found += [row["id"] for row in next(batches).rows]
    return found[:count]


def test_each_epoch_has_every_prompt_once_in_another_order():
    order = ids(stream(), 30)
    epochs = [order[start : start + 10] for start in (0, 10, 20)]
    assert all(sorted(epoch) == sorted(row["id"] for row in ROWS) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("prompts_per_step", [1, 2, 3, 7, 10, 16, 128])
def test_the_order_does_not_depend_on_the_batch_size(prompts_per_step):
    other = stream(prompts_per_step)
    assert ids(other, 200) == ids(stream(), 200)
    assert other.order_hash() == stream().order_hash()


def test_a_resumed_stream_continues_with_the_next_prompt():
    whole = ids(stream(), 45)
    for cut in range(35):
        assert ids(stream(), 10, seen=cut) == whole[cut : cut + 10]


def test_resumed_batches_are_equal_in_every_tensor():
    whole = list(islice(stream().after(0), 8))
    for step in range(8):
        resumed = next(stream().after(3 * step))
        assert resumed.rows == whole[step].rows
        assert resumed.tokens.equal(whole[step].tokens)
        assert resumed.lengths.equal(whole[step].lengths)


def test_the_order_and_its_hash_depend_on_the_seed():
    assert ids(stream(seed=1), 20) != ids(stream(seed=2), 20)
    assert stream(seed=1).order_hash() != stream(seed=2).order_hash()
    assert stream().order_hash(5) == stream(7).order_hash(5) != stream().order_hash(6)


def test_tokens_are_padded_on_the_left():
    rows = ({"id": "a", "prompt": "abc"}, {"id": "b", "prompt": "d"})
    (batch,) = iterate_once(rows, encode, 4, 0, 8)
    assert batch.tokens.tolist() == [[97, 98, 99], [0, 0, 100]]
    assert batch.lengths.tolist() == [3, 1]
    assert batch.rows == rows


def test_iterate_once_yields_each_prompt_once_in_the_order_of_the_rows():
    batches = list(iterate_once(ROWS, encode, 4, 0, 8))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert [row["id"] for batch in batches for row in batch.rows] == [row["id"] for row in ROWS]


def test_prompts_are_tokenized_once():
    calls = []
    prompts = PromptStream(ROWS, lambda text: calls.append(text) or [1], 3, 42, 0, 8)
    list(islice(prompts.after(0), 20))
    assert len(calls) == len(ROWS)


def test_checking_dropping_and_training_tokenize_a_prompt_once(monkeypatch):
    read, inner = Counter[str](), Text.encode_prompt
    monkeypatch.setattr(Text, "encode_prompt", lambda self, prompt: read.update([prompt]) or inner(self, prompt))
    cfg = config("hardware=cpu", "data.train_rows=20", "data.validation_rows=5", "data.test_rows=5", "rl.too_long=drop")
    resolved = resolve(cfg)
    run = Pipeline(build(resolved), resolved, identify(resolved))
    run.check()
    batch = next(run.prompts().after(0))
    rows = run.run_data.prompts["train"]
    assert [read[row["prompt"]] for row in rows] == [1] * 20
    for row, tokens, length in zip(batch.rows, batch.tokens, batch.lengths, strict=True):
        assert tokens[-length:].tolist() == inner(run.run_data.text, row["prompt"])


def test_a_prompt_that_is_too_long_is_named_and_never_truncated():
    with pytest.raises(UserError, match=r"row r3 has 4 tokens, above max_prompt_tokens=3.*never truncated"):
        stream(limit=3)


def test_no_prompts_and_an_empty_prompt_are_errors():
    with pytest.raises(UserError, match="no prompts"):
        stream(rows=())
    with pytest.raises(UserError, match="row e has no tokens"):
        stream(rows=({"id": "e", "prompt": ""},))
