"""Packed sequences equal padded ones, gradients included, for every model that supports packing."""

from dataclasses import dataclass, replace

import pytest
import torch
from small_models import CONFIGS, EOS, PAD, SIZES, SPECIAL, VOCABULARY, batch, make_model
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3TextConfig,
    GemmaConfig,
    GPTNeoConfig,
    Phi3Config,
    Qwen3Config,
)

from alignbench.algorithms.grpo import GRPO
from alignbench.algorithms.ppo import PPO
from alignbench.core.batches import Rollouts, Scored, sequences
from alignbench.core.protocols import Critic
from alignbench.engine.checks import Invariants
from alignbench.engine.optimizer import AdamW, Optimizer
from alignbench.engine.score import compute_forward
from alignbench.engine.token_metrics import TokenMeans
from alignbench.engine.update import Update
from alignbench.kernels.attention_switch import use_attention
from alignbench.kernels.prefix_attention import PREFIX_ATTENTION
from alignbench.kernels.sequence_packing import pack_sequences, pad_sequences
from alignbench.models import critic as critics
from alignbench.models.loading import Lora, Pretrained
from alignbench.models.policy import CausalPolicy

GROUPED = {"num_key_value_heads": 2}
WINDOWED = {**GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8}
FAMILIES = {
    **{name: CONFIGS[name] for name in ("llama", "gpt2", "qwen2", "gemma2", "mistral")},
    "qwen3": lambda: Qwen3Config(**SIZES, **GROUPED, head_dim=8),
    "gemma": lambda: GemmaConfig(**SIZES, **GROUPED, head_dim=8),
    "gemma2, wide window": lambda: CONFIGS["gemma2"]().__class__(
        **SIZES, **WINDOWED, sliding_window=32, final_logit_softcapping=2.0, attn_logit_softcapping=0.5
    ),
    "gemma3": lambda: Gemma3TextConfig(**SIZES, **WINDOWED, sliding_window=32),
    "phi3": lambda: Phi3Config(**SIZES, sliding_window=32),
    "bloom": lambda: BloomConfig(
        vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3, **SPECIAL
    ),
    "gpt_neo": lambda: GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=64,
        window_size=16,
        initializer_range=0.3,
        **SPECIAL,
    ),
}
UNSUPPORTED = ("gemma2", "mistral", "bloom", "gpt_neo")
"""Unsupported: a window of four tokens, ALiBi by column, or a local window by column."""
PROMPTS = [[5, 6, 7, 8, 9, 10, 11, 5, 3, 2], [4, 1, 4, 9, 9, 12]]
RESPONSES = [[[3, 4, EOS], [9, 8, 7, 6, 5, 4], [EOS], [13, 2, 15, 14]], [[2, 2, EOS], [7], [8, 8], [3, 14, 2, 2, EOS]]]
BATCH = batch([p for p in PROMPTS for _ in range(4)], [r for group in RESPONSES for r in group])
TOKENS, WHOLE = 10 + 10 + 6 + 7, 48
"""Tokens to read of the batch, and the same rounded up to a multiple of 16."""


@dataclass
class Answer:
    """The outputs of a policy, and the gradient of a random linear function of them."""

    forward: object
    gradients: dict


def evaluate(policy, packs, rows=BATCH):
    policy.packing = replace(policy.packing, supported=packs)
    for _, p in policy.trainable():
        p.grad = None
    now = policy(rows)
    draw = torch.Generator().manual_seed(0)
    parts = [now.logprobs, now.entropy] + ([] if now.values is None else [now.values])
    sum((part * torch.randn(part.shape, generator=draw)).sum() for part in parts).backward()
    return Answer(now, {name: p.grad.clone() for name, p in policy.trainable() if p.grad is not None})


def agree(found, expected, share=5e-6):
    torch.testing.assert_close(found.forward.logprobs, expected.forward.logprobs, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.forward.entropy, expected.forward.entropy, atol=1e-5, rtol=0)
    if expected.forward.values is not None:
        torch.testing.assert_close(found.forward.values, expected.forward.values, atol=1e-5, rtol=0)
    assert found.gradients.keys() == expected.gradients.keys()
    largest = max(float(g.norm()) for g in expected.gradients.values())
    assert largest > 0.1
    for name, gradient in expected.gradients.items():
        assert float((found.gradients[name] - gradient).norm()) <= share * largest, name


def family(name, text):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CausalPolicy(AutoModelForCausalLM.from_config(FAMILIES[name]()), text)


@pytest.fixture
def packing(text):
    """A policy that supports packing."""
    return family("llama", text)


def tokens_read(policy, rows=BATCH):
    """Number of tokens, padding included, that pass the layers."""
    seen = []
    hook = policy.inner.get_input_embeddings().register_forward_hook(lambda _, args, __: seen.append(args[0].numel()))
    with torch.no_grad():
        policy(rows)
    hook.remove()
    return sum(seen)


@pytest.mark.parametrize("name", FAMILIES)
def test_which_models_support_packing(name, text):
    policy = family(name, text)
    assert policy.shares_prompts == (name not in UNSUPPORTED)
    assert tokens_read(policy) == (8 * 15 if name in UNSUPPORTED else WHOLE)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in UNSUPPORTED])
def test_packed_equals_padded(name, text):
    policy = family(name, text)
    agree(evaluate(policy, True), evaluate(policy, False))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("critic", [Critic(hidden=4), Critic(trunk="separate", hidden=4)], ids=["shared", "separate"])
@pytest.mark.parametrize("kind", ["all weights", "adapter", "four bits"])
def test_packed_equals_padded_with_a_critic_and_adapters(kind, critic, attention, wide_gemma, text):
    source = Pretrained(
        name="gemma",
        path=str(wide_gemma),
        lora=None if kind == "all weights" else Lora(rank=4),
        quantization="nf4" if kind == "four bits" else "none",
        attention=attention,
    )
    model, _ = source.load(texts=(), start=None, device="cpu", seed=0)
    policy = CausalPolicy(model, text, critic=critics.make_critic(model, critic, seed=0))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, p in policy.trainable():
            p += 0.1 * torch.randn(p.shape, generator=draw)
    assert policy.shares_prompts
    agree(evaluate(policy, True), evaluate(policy, False), share=1e-5 if kind == "four bits" else 5e-6)
    policy.freeze_reference()
    with torch.no_grad(), policy.reference():
        together = policy(BATCH).logprobs
        policy.packing = replace(policy.packing, supported=False)
        torch.testing.assert_close(together, policy(BATCH).logprobs, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def wide_gemma(tmp_path_factory, text):
    """A small Gemma on disk; its widths are multiples of 64, the block size of 4-bit weights."""
    config = GemmaConfig(**SIZES | {"hidden_size": 64, "intermediate_size": 64}, **GROUPED, head_dim=16)
    folder = tmp_path_factory.mktemp("gemma")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    text.tokenizer.save_pretrained(folder)
    return folder


def test_low_precision_models_support_packing(text):
    policy = CausalPolicy(make_model("llama").bfloat16(), text)
    assert policy.shares_prompts
    with torch.no_grad():
        together = policy(BATCH).logprobs
        policy.packing = replace(policy.packing, supported=False)
        torch.testing.assert_close(together, policy(BATCH).logprobs, atol=0.15, rtol=0.05)


def test_sequences_longer_than_the_window_are_not_packed(text):
    policy = family("phi3", text)
    fits, longer = (batch([[5, 6, 7, 8]] * 2, [[3] * t, [4] * 5]) for t in (28, 29))
    assert tokens_read(policy, fits) == 48 >= 4 + 27 + 4
    assert tokens_read(policy, longer) == 2 * (4 + 28)


def test_with_dropout_sequences_are_not_packed(packing):
    assert tokens_read(packing) == WHOLE
    with packing.training():
        assert tokens_read(packing) == 8 * 15


def test_a_sibling_does_not_change_log_probabilities(packing):
    other = batch(
        [p for p in PROMPTS for _ in range(4)],
        [r if i else [12, 13, 5, 11] for group in RESPONSES for i, r in enumerate(group)],
    )
    with torch.no_grad():
        one, two = packing(BATCH).logprobs, packing(other).logprobs
    mine = torch.arange(8) % 4 > 0
    torch.testing.assert_close(one[mine], two[mine], atol=1e-5, rtol=0)
    assert (one[~mine, 0] != two[~mine, 0]).all()


def test_a_sibling_gets_no_gradient(packing):
    """The token 13 is in one response only."""
    table = packing.inner.get_input_embeddings().weight
    (lower,) = torch.autograd.grad(packing(BATCH).logprobs[[0, 1, 2]].sum(), table)
    assert (lower[13] == 0).all()
    assert lower[[3, 5]].abs().max() > 0


@pytest.mark.parametrize("pad", [EOS, 7])
def test_the_padding_of_a_packed_row_does_not_matter(packing, pad):
    rows = pack_sequences(BATCH, PAD)
    assert rows.input_ids.shape == (1, WHOLE)
    assert (rows.input_ids[0, TOKENS:] == PAD).all()
    other = replace(rows, input_ids=torch.where(torch.arange(WHOLE) < TOKENS, rows.input_ids, pad))
    assert not torch.equal(rows.input_ids, other.input_ids)
    with torch.no_grad():
        one, two = (packing._hidden(r.forward_kwargs(torch.float32)) for r in (rows, other))
    assert torch.equal(rows.select_predictors(one, BATCH.mask), rows.select_predictors(two, BATCH.mask))


# --- the layout ---------------------------------------------------------------------------------------------------

TWO = sequences([[5, 6, 7]] * 2 + [[5, 6]], [[8, 9, 1], [2], [3, 4]], PAD)


def test_a_packed_row_by_hand():
    rows = pack_sequences(TWO, PAD)  # the shorter prompt first
    assert rows.input_ids.tolist() == [[5, 6, 5, 6, 7, 8, 9, 3] + [PAD] * 8]
    assert rows.position_ids.tolist() == [[0, 1, 0, 1, 2, 3, 4, 2] + [0] * 8]
    assert rows.predictors[0].tolist() == [4, 5, 6]
    assert rows.predictors[1, 0] == 4
    assert rows.predictors[2, :2].tolist() == [1, 7]
    of_prompts, longer, shorter = rows.layout.blocks
    assert of_prompts.query_columns.tolist() == of_prompts.key_columns.tolist() == [[0, 1, 1], [2, 3, 4]]
    assert of_prompts.bias is None
    assert longer.query_columns.tolist() == [[5, 6]]
    assert longer.key_columns.tolist() == [[2, 3, 4, 5, 6]]
    assert longer.bias[0, 0].tolist() == [[0, 0, 0, 0, -torch.inf], [0, 0, 0, 0, 0]]
    assert shorter.query_columns.tolist() == [[7], [6]]  # the second response has no input tokens
    assert shorter.key_columns[0].tolist() == [0, 1, 1, 7]
    assert shorter.bias[0, 0].tolist() == [[0, 0, -torch.inf, 0]]
    assert rows.layout.output_index.tolist() == [0, 1, 3, 4, 5, 6, 7, 8] + [0] * 8


@pytest.mark.parametrize(
    ("lengths", "shapes"),
    [
        ((9, 9, 9), [(3, 8)]),
        ((9, 8, 7), [(3, 8)]),  # little padding; the last token of each is not read
        ((9, 2, 3), [(1, 8), (2, 2)]),
        ((2, 9, 9, 2), [(2, 8), (2, 1)]),
        ((30, 9, 9, 9), [(1, 29), (3, 8)]),
    ],
)
def test_long_responses_get_their_own_attention_block_if_that_saves_work(lengths, shapes):
    layout = pack_sequences(sequences([[5, 6]] * len(lengths), [[3] * n for n in lengths], PAD), PAD).layout
    assert [tuple(look.query_columns.shape) for look in layout.blocks[1:]] == shapes


@pytest.mark.parametrize(("tokens", "columns"), [(97, 112), (481, 496), (521, 544), (1031, 1088)])
def test_a_packed_row_is_padded_to_the_row_multiple(tokens, columns):
    assert pack_sequences(sequences([[5]], [[3] * tokens], PAD), PAD).input_ids.shape == (
        1,
        columns,
    )  # the last is not read


def test_no_attention_block_contains_padding():
    rows = pack_sequences(BATCH, PAD)
    looked = [part.flatten() for look in rows.layout.blocks for part in (look.query_columns, look.key_columns)]
    assert sorted(set(torch.cat([*looked, rows.predictors.flatten()]).tolist())) == list(range(TOKENS))


def test_responses_of_one_token_need_only_their_prompts(packing):
    single = batch([[5, 6, 7, 8, 9]] * 3 + [[5, 6, 7]], [[3], [4], [EOS], [7]])
    rows = packing.packing.arrange(single, PAD)
    assert rows.input_ids.tolist() == [[5, 6, 7, 5, 6, 7, 8, 9] + [PAD] * 8]
    agree(evaluate(packing, True, single), evaluate(packing, False, single))


def test_padded_rows_by_hand():
    rows = pad_sequences(TWO, PAD)
    assert rows.input_ids.tolist() == [[5, 6, 7, 8, 9], [5, 6, 7, PAD, PAD], [5, 6, 3, PAD, PAD]]
    assert set(rows.forward_kwargs(torch.float32)) == {"input_ids"}
    whole = pad_sequences(TWO, PAD, include_last=True).input_ids.tolist()
    assert whole == [[5, 6, 7, 8, 9, 1], [5, 6, 7, 2, PAD, PAD], [5, 6, 3, 4, PAD, PAD]]


def test_only_equal_prompts_are_shared():
    prompts = [[5, 6], [5, 6, 7], [5, 6], [PAD, 5, 6], [5, 6, 7]]
    rows = pack_sequences(sequences(prompts, [[3, 4]] * 5, PAD), PAD)
    assert rows.predictors[0, 0] == rows.predictors[2, 0]  # the last prompt token
    assert rows.predictors[1, 0] == rows.predictors[4, 0]
    assert len(set(rows.predictors[:, 0].tolist())) == 3


@pytest.mark.parametrize(("prompts", "responses", "rows"), [
    ([[5, 6, 7, 8, 9, 7]] * 4, [[3] * 9] * 4, 1),  # a prompt is shared
    ([[5, 6, 7, t] for t in range(4)], [[3] * 9] * 4, 4),  # no shared prompt, equal lengths
    ([[5, 6, 7, t] for t in range(4)], [[3] * 40, [3], [4], [5]], 1),  # no shared prompt, but mostly padding
])  # fmt: skip
def test_sequences_are_packed_only_if_that_saves_tokens(packing, prompts, responses, rows):
    assert len(packing.packing.arrange(batch(prompts, responses), PAD).input_ids) == rows


def test_attention_with_sinks_raises(packing):
    inputs = pack_sequences(BATCH, PAD).forward_kwargs(torch.float32)
    with pytest.raises(ValueError, match="sinks"), use_attention(packing.inner.config, PREFIX_ATTENTION):
        packing.decoder(**inputs, use_cache=False, s_aux=torch.zeros(4))


# --- in the update ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "tokens"), [(1, None), (3, None), (4, None), (8, None), (8, 1), (8, 19), (8, 50)])
@pytest.mark.parametrize("algorithm", [GRPO(group_size=4), PPO(group_size=4, value_clip=None)], ids=["grpo", "ppo"])
def test_microbatches_of_packed_rows_give_the_gradient_of_padded_rows(algorithm, size, tokens, text):
    critic = algorithm.critic and Critic(hidden=4)

    def gradients(packs, microbatch_size, tokens=None):
        model = make_model("llama")
        policy = CausalPolicy(model, text, critic=critic and critics.make_critic(model, critic, seed=0))
        policy.packing = replace(policy.packing, supported=packs)
        draw = torch.Generator().manual_seed(0)
        before = compute_forward(policy, BATCH, 8)
        rollouts = BATCH.widen(
            Rollouts,
            group=torch.arange(8) // 4,
            logprobs=before.logprobs,
            truncated=torch.zeros(8, dtype=torch.bool),
            texts=("",) * 8,
            rows=({},) * 8,
        )
        scored = rollouts.widen(
            Scored,
            scores=torch.randn(8, generator=draw),
            old_logprobs=before.logprobs - 0.1,
            ref_logprobs=before.logprobs + 0.1,
            values=before.values,
            kl_coef=0.1,
        )
        batch = algorithm.with_weights(algorithm.credit(scored))
        params = [p for _, p in policy.trainable()]
        update = Update(
            policy=policy,
            algorithm=algorithm,
            optimizer=Optimizer([(params, 0.1)], AdamW(), 1),
            epochs=1,
            minibatches=1,
            invariants=Invariants(),
            microbatch_size=microbatch_size,
            tokens_per_microbatch=tokens,
        )
        update._accumulate(batch, TokenMeans())
        return Answer(before, {name: p.grad for name, p in policy.trainable()})

    agree(gradients(True, size, tokens), gradients(False, 8))
