"""Continuous batching: answers that join the batch later equal those of one large batch."""

import pytest
import torch
from small_models import PAD, PROMPTS, make_model, prompts_of
from small_runs import SMALL, config, numbers, run_small
from torch.testing import assert_close

from alignbench.core.errors import UserError
from alignbench.generation.continuous_batching import ActiveBatch, PromptQueue
from alignbench.generation.decoding import StandardDecoder
from alignbench.generation.kv_cache import INITIAL_CAPACITY
from alignbench.generation.logits_filters import LogitsFilter
from alignbench.generation.sampler import Sampler
from alignbench.generation.shared_prefix_decoding import SharedPrefixDecoder
from alignbench.kernels.hardware import Hardware
from alignbench.models.loading import Lora
from alignbench.models.policy import CausalPolicy
from alignbench.planning.run_plan import RunPlan
from alignbench.runs.settings import resolve

MANY, GROUP, LIMIT = PROMPTS * 3, 3, INITIAL_CAPACITY + 8
WIDE = {"llama": {}, "gpt2": {}, "qwen2": {}, "mistral": {"sliding_window": 64}, "gemma2": {"sliding_window": 64}}
"""Rotary and absolute positions, grouped-query attention and soft-capping, without a sliding window."""


def draw(policy, at_once, *, group=GROUP, temperature=1.0, logits_filter=None):
    sampler = Sampler(
        policy=policy,
        max_new_tokens=LIMIT,
        temperature=temperature,
        logits_filter=logits_filter,
        rollouts_at_once=at_once,
    )
    return sampler(prompts_of(MANY), group, 5)


def assert_same(found, expected):
    for name in ("prompts", "prompt_lengths", "responses", "mask", "group", "truncated"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert (found.texts, found.rows) == (expected.texts, expected.rows)
    assert_close(found.logprobs, expected.logprobs, atol=1e-5, rtol=1e-5)


@pytest.fixture
def recorded(monkeypatch):
    """Number of rows in each step, and numbers of prompts that joined the batch."""
    steps, joined = [], []
    for way in (SharedPrefixDecoder, StandardDecoder):
        monkeypatch.setattr(
            way, "step", lambda self, tokens, step=way.step: steps.append(len(tokens)) or step(self, tokens)
        )
    monkeypatch.setattr(
        SharedPrefixDecoder,
        "add_prompts",
        lambda self, prompts, admit=SharedPrefixDecoder.add_prompts: (
            joined.append(len(prompts)) or admit(self, prompts)
        ),
    )
    return steps, joined


@pytest.mark.parametrize("name", WIDE)
def test_prompts_that_join_later_get_the_same_answers(name, text, recorded):
    policy, (steps, joined) = CausalPolicy(make_model(name, **WIDE[name]), text), recorded
    expected = draw(policy, None)
    assert expected.mask.sum(1).max() > INITIAL_CAPACITY, "some answers exceed the initial capacity"
    assert not joined
    for at_once in (7, 8, 20):
        steps.clear()
        joined.clear()
        assert_same(draw(policy, at_once), expected)
        assert max(steps) <= at_once
        assert sum(joined) > 1


@pytest.mark.parametrize(
    "rules", [{"temperature": 0.0}, {"temperature": 1.3, "logits_filter": LogitsFilter(top_k=6, top_p=0.9)}]
)
def test_greedy_and_filtered_answers_are_the_same(llama, rules, recorded):
    expected = draw(llama, None, **rules)
    assert_same(draw(llama, 8, **rules), expected)
    assert sum(recorded[1]) > 1


def test_log_probabilities_agree_with_the_update(llama):
    rollouts = draw(llama, 8)
    with torch.no_grad():
        assert_close(llama(rollouts).logprobs, rollouts.logprobs, atol=1e-5, rtol=1e-5)


def test_answers_with_an_adapter_are_the_same(text, recorded):
    from peft import get_peft_model

    model = make_model("llama").requires_grad_(False)
    adapted = get_peft_model(model, Lora(rank=4).config(task_type="CAUSAL_LM"), adapter_name="default")
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) / 8)
    policy = CausalPolicy(adapted, text)
    expected = draw(policy, None)
    assert_same(draw(policy, 8), expected)
    assert sum(recorded[1]) > 1
    with adapted.disable_adapter():
        assert not torch.equal(draw(policy, 8).responses, expected.responses)


@pytest.mark.parametrize("name", ["mistral", "gemma2"])
def test_with_a_sliding_window_batches_are_sequential(name, text, recorded):
    policy, (steps, joined) = CausalPolicy(make_model(name), text), recorded
    expected = draw(policy, None)
    steps.clear()
    assert_same(draw(policy, 8), expected)
    assert (max(steps), joined) == (6, [])


@pytest.mark.parametrize("at_once", [len(MANY) * GROUP, 1000])
def test_if_all_rows_fit_results_are_bit_identical(llama, at_once):
    found, expected = draw(llama, at_once), draw(llama, None)
    assert torch.equal(found.responses, expected.responses)
    assert torch.equal(found.logprobs, expected.logprobs)


def test_a_group_larger_than_the_limit_is_not_split(llama, recorded):
    expected, (steps, joined) = draw(llama, None, group=8), recorded
    steps.clear()
    assert_same(draw(llama, 5, group=8), expected)
    assert (max(steps), joined) == (8, [])


def test_the_cache_has_no_more_rows_and_columns_than_needed(llama, monkeypatch):
    """As many cache rows as concurrent answers, and no more columns than the longest answer needs."""
    sizes, step = [], SharedPrefixDecoder.step

    def measured(self, tokens):
        logits = step(self, tokens)
        sizes.append((*self.cache.layers[0].responses[0].shape[::2], self.cache.layers[0].written))
        return logits

    monkeypatch.setattr(SharedPrefixDecoder, "step", measured)
    draw(llama, 11)
    rows, columns, written = map(max, zip(*sizes, strict=True))
    assert (rows, columns) == (11, 2 * INITIAL_CAPACITY)
    assert written > 2 * INITIAL_CAPACITY, "columns must have been overwritten"


def test_uninitialized_memory_does_not_leak(llama, monkeypatch):
    """A row that joins does not read uninitialized memory, which may contain NaN."""
    expected, empty = draw(llama, 8), torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda self, *size, **kw: empty(self, *size, **kw).fill_(torch.nan))
    assert_same(draw(llama, 8), expected)


# --- prompt queue and active batch ------------------------------------------------------------------------------------


def test_the_queue_pops_prompts_in_order_without_excess_padding():
    prompts = prompts_of([[5, 6, 7], [3], [4, 5], [6]])
    queue = PromptQueue(prompts, 2, 5)
    (first, rows), (second, more), (last, rest) = queue.pop(0), queue.pop(3), queue.pop(2)
    assert first.tokens.tolist() == [[5, 6, 7], [PAD, PAD, 3]]
    assert second.tokens.tolist() == [[4, 5]]
    assert last.tokens.tolist() == [[6]]
    assert [rows.tolist(), more.tolist(), rest.tolist()] == [[0, 1, 2, 3], [4, 5], [6, 7]]
    assert [row["id"] for part in (first, second, last) for row in part.rows] == [row["id"] for row in prompts.rows]
    assert not queue


@pytest.mark.parametrize(("to_be_filled", "kept"), [(False, [1, 3, 4, 6]), (True, [4, 1, 6, 3])])
def test_compact_moves_the_last_rows_if_prompts_will_join(to_be_filled, kept):
    batch = ActiveBatch(torch.arange(10, 17), limit=9)
    batch.advance(torch.tensor([True, False, True, False, False, True, False]))
    assert batch.should_compact()
    assert batch.compact(to_be_filled).tolist() == kept
    assert batch.rows.tolist() == [10 + row for row in kept]
    batch.add(torch.tensor([30, 31]))
    assert (len(batch), batch.generated.tolist()) == (6, [1, 1, 1, 1, 0, 0])


def test_a_row_at_the_limit_is_removed_at_once():
    """Otherwise its position would exceed the context of the model."""
    batch = ActiveBatch(torch.tensor([0]), limit=3)
    batch.advance(torch.tensor([False]))
    batch.add(torch.arange(1, 10))
    batch.advance(torch.zeros(10, dtype=torch.bool))
    assert not batch.should_compact()
    batch.advance(torch.zeros(10, dtype=torch.bool))
    assert batch.should_compact(), "although nine of ten rows are unfinished"
    assert batch.compact(refill=False).tolist() == list(range(1, 10))


def test_vllm_does_not_take_rollouts_at_once():
    with pytest.raises(UserError, match=r"hardware\.rollouts_at_once=null, or hardware\.sampler=own"):
        Hardware(sampler="vllm", rollouts_at_once=64)


def test_a_run_uses_continuous_batching_and_its_plan_estimates_less_memory(tmp_path, monkeypatch):
    """The built-in model, eight prompts with four answers each in every step, eight concurrent answers."""
    overrides = (
        "algo=grpo",
        "algo.group_size=4",
        "rl.rollouts_per_step=32",
        "rl.steps=1",
        "sft.enabled=false",
        "data.validation_rows=1",
        "data.test_rows=1",
        f"output_dir={tmp_path}",
    )
    calls, draw = [], Sampler.__call__
    monkeypatch.setattr(
        Sampler,
        "__call__",
        lambda self, prompts, group_size, seed: (
            calls.append((self.rollouts_at_once, len(prompts) * group_size)) or draw(self, prompts, group_size, seed)
        ),
    )
    folder = run_small(tmp_path, *overrides, "hardware.rollouts_at_once=8")
    assert numbers(folder)
    assert set(calls) == {(8, 32), (None, 1)}
    caches = [
        RunPlan(resolve(config(*SMALL, *overrides, f"hardware.rollouts_at_once={at_once}")))
        .expected.memory()[-1]
        .activities["sampling"]["KV cache"]
        for at_once in ("null", 8, 1)
    ]
    assert caches == sorted(caches, reverse=True)
    assert caches[2] < caches[1] < caches[0] / 2
