"""The sampler against generate() of transformers, the log-probabilities of the update, and token frequencies."""

import gc

import pytest
import torch
from scipy.stats import chisquare
from small_models import EOS, PAD, PROMPTS, SIZES, make_model, make_text, markov_model, prompts_of
from transformers import AutoModelForCausalLM, BloomConfig, GptOssConfig

from alignbench.engine.score import compute_forward
from alignbench.generation import continuous_batching, shared_prefix_decoding
from alignbench.generation.decoding import StandardDecoder
from alignbench.generation.sampler import Sampler, inverse_cdf_sample
from alignbench.generation.shared_prefix_decoding import SharedPrefixDecoder, make_decoder, supports_shared_prefix
from alignbench.models.policy import CausalPolicy

LIMIT = 12


def draw(policy, tokens=PROMPTS, *, group=3, seed=7, temperature=1.0, limit=LIMIT, ids=None):
    return Sampler(policy=policy, max_new_tokens=limit, temperature=temperature)(prompts_of(tokens, ids), group, seed)


def answers(rollouts):
    return [row[keep].tolist() for row, keep in zip(rollouts.responses, rollouts.mask, strict=True)]


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.3])
def test_the_sampler_and_the_update_agree_on_every_token(policy, temperature):
    at = CausalPolicy(policy.model, policy.text, temperature=temperature)
    rollouts = draw(at, temperature=temperature, group=4)
    with torch.no_grad():
        again = at(rollouts).logprobs
    torch.testing.assert_close(rollouts.logprobs, again, atol=1e-5, rtol=1e-5)
    assert (rollouts.logprobs[rollouts.mask] < 0).all()
    assert (rollouts.logprobs[~rollouts.mask] == 0).all()


def test_temperature_zero_equals_greedy_generation_of_transformers(policy):
    prompts = prompts_of()
    seen = torch.arange(prompts.tokens.shape[1])[None] >= (prompts.tokens.shape[1] - prompts.lengths)[:, None]
    written = policy.model.generate(
        prompts.tokens,
        attention_mask=seen.long(),
        do_sample=False,
        max_new_tokens=LIMIT,
        eos_token_id=EOS,
        pad_token_id=PAD,
        suppress_tokens=[PAD],
    )[:, prompts.tokens.shape[1] :]
    rollouts = draw(policy, group=1, temperature=0.0)
    expected = [row[: row.index(EOS) + 1] if EOS in row else row for row in written.tolist()]
    assert answers(rollouts) == expected


def test_a_single_prompt_gets_the_answers_it_gets_in_a_batch(policy):
    together = answers(draw(policy))
    for i, prompt in enumerate(PROMPTS):
        assert answers(draw(policy, [prompt], ids=[i])) == together[3 * i : 3 * i + 3]


def test_a_larger_group_starts_with_the_smaller_one(llama):
    small, large = answers(draw(llama, group=2)), answers(draw(llama, group=5))
    for i in range(len(PROMPTS)):
        assert large[5 * i : 5 * i + 2] == small[2 * i : 2 * i + 2]


def test_a_repeated_prompt_gets_new_answers(llama):
    once = answers(draw(llama, [PROMPTS[0]], group=6))
    twice = answers(draw(llama, [PROMPTS[0]] * 2, group=3, ids=[0, 0]))
    assert twice == once
    assert twice[:3] != twice[3:]


def test_answers_depend_on_the_seed_alone(llama):
    first, again, other = draw(llama, seed=1), draw(llama, seed=1), draw(llama, seed=2)
    assert torch.equal(first.responses, again.responses)
    assert torch.equal(first.logprobs, again.logprobs)
    assert answers(first) != answers(other)
    torch.manual_seed(1234)
    assert answers(draw(llama, seed=1)) == answers(first)


def test_rollouts_can_be_used_with_autograd(llama):
    rollouts = draw(llama)
    weight = torch.ones(1, requires_grad=True)
    for part in (rollouts.logprobs, rollouts.responses, compute_forward(llama, rollouts, 4).logprobs):
        (weight * part).sum().backward()  # autograd saves the sampled tensors for this gradient


def test_siblings_differ(llama):
    written = answers(draw(llama, [PROMPTS[0]], group=64))
    assert len({tuple(answer) for answer in written}) > 55


@pytest.mark.parametrize("pad_is_eos", [False, True])
def test_an_answer_ends_with_its_only_stop_token(pad_is_eos):
    text = make_text(pad_is_eos)
    policy = CausalPolicy(make_model("llama"), text)
    rollouts = draw(policy, group=16)
    written = answers(rollouts)
    assert 0 < rollouts.truncated.sum() < len(rollouts), "some must end and some must be truncated"
    for answer, cut in zip(written, rollouts.truncated.tolist(), strict=True):
        assert answer.count(EOS) == (0 if cut else 1)
        assert len(answer) == LIMIT if cut else answer[-1] == EOS
    assert (rollouts.responses[~rollouts.mask] == text.pad).all()


def test_padding_is_never_sampled(llama):
    rollouts = draw(llama, group=64, temperature=5.0)
    assert not (rollouts.responses[rollouts.mask] == PAD).any()


def test_prompts_are_returned_unchanged(llama):
    given = prompts_of()
    rollouts = draw(llama, group=3)
    assert torch.equal(rollouts.prompts, given.tokens.repeat_interleave(3, 0))
    assert torch.equal(rollouts.prompt_lengths, given.lengths.repeat_interleave(3))
    assert rollouts.group.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [row["id"] for row in rollouts.rows] == [row["id"] for row in given.rows for _ in range(3)]


def test_responses_are_the_sampled_tokens_and_not_the_encoded_text(text):
    """Random bytes are rarely valid UTF-8, so encoding the text again gives other tokens."""
    policy = CausalPolicy(markov_model(torch.ones(258, 258) / 258), text)
    rollouts = draw(policy, group=4, limit=8)
    read_again = [text.tokenizer(t, add_special_tokens=False)["input_ids"] for t in rollouts.texts]
    assert any(again != answer for again, answer in zip(read_again, answers(rollouts), strict=True))
    with torch.no_grad():
        torch.testing.assert_close(policy(rollouts).logprobs, rollouts.logprobs, atol=1e-5, rtol=1e-5)


def test_one_token_is_the_shortest_answer(llama):
    rollouts = draw(llama, limit=1, group=8)
    assert rollouts.mask.shape == (len(PROMPTS) * 8, 1)
    assert torch.equal(rollouts.truncated, rollouts.responses[:, 0] != EOS)


def test_token_frequencies_match_the_probabilities():
    probabilities = torch.tensor([0.0, 0.05, 0.3, 0.02, 0.13, 0.5])
    model = markov_model(probabilities.clamp(min=1e-30).expand(6, 6))
    policy = CausalPolicy(model, make_text(pad_is_eos=True))
    sampled = draw(policy, [[3, 2]], group=4000, limit=1).responses[:, 0]
    counts = torch.bincount(sampled, minlength=6)
    assert counts[0] == 0
    assert chisquare(counts[1:].numpy(), 4000 * probabilities[1:].double().numpy()).pvalue > 0.01


def test_temperature_sharpens_the_distribution():
    probabilities = torch.tensor([0.1, 0.1, 0.2, 0.6])
    policy = CausalPolicy(markov_model(probabilities.expand(4, 4)), make_text(pad_is_eos=True), temperature=0.5)
    sampled = draw(policy, [[3, 2]], group=4000, limit=1, temperature=0.5).responses[:, 0]
    sharper = probabilities.double() ** 2 / (probabilities.double() ** 2).sum()
    assert chisquare(torch.bincount(sampled, minlength=4).numpy(), 4000 * sharper.numpy()).pvalue > 0.01


# --- shared-prefix and standard decoding ------------------------------------------------------------------------------

FITTING = {"llama": {}, "gpt2": {}, "qwen2": {}, "mistral": {"sliding_window": 64}, "gemma2": {"sliding_window": 64}}


@pytest.mark.parametrize("name", FITTING)
def test_shared_prefix_and_standard_decoding_give_the_same_logits(name, text):
    """With fixed tokens: rows leave, a whole group leaves, and the initial capacity is exceeded."""
    policy = CausalPolicy(make_model(name, **FITTING[name]), text)
    assert isinstance(make_decoder(policy, prompts_of(), 3, 40), SharedPrefixDecoder)
    decoders = [decoder(policy, prompts_of(), 3) for decoder in (SharedPrefixDecoder, StandardDecoder)]
    rng, left = torch.Generator().manual_seed(0), 12
    with torch.no_grad():
        torch.testing.assert_close(*(decoder.prefill() for decoder in decoders))
        for t in range(40):
            if t in (2, 5, 36):
                kept = {2: [0, 1, 2, 6, 7, 11], 5: [0, 2, 5], 36: [1]}[t]
                left = len(kept)
                for decoder in decoders:
                    decoder.select(torch.tensor(kept))
            tokens = torch.randint(2, 16, (left,), generator=rng)
            torch.testing.assert_close(*(decoder.step(tokens) for decoder in decoders), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", FITTING)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_models_use_shared_prefix_decoding(name, dtype, text):
    policy = CausalPolicy(make_model(name, **FITTING[name]).to(dtype), text)
    assert isinstance(make_decoder(policy, prompts_of(), 3, 40), SharedPrefixDecoder)


@pytest.mark.parametrize("name", ["mistral", "gemma2"])
def test_a_sliding_window_uses_standard_decoding(name, text):
    assert isinstance(make_decoder(CausalPolicy(make_model(name), text), prompts_of(), 3, 5), StandardDecoder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_unsupported_attention_uses_standard_decoding(text, dtype):
    bloom = BloomConfig(vocab_size=16, hidden_size=32, n_layer=2, n_head=4, pad_token_id=PAD, eos_token_id=EOS)
    sinks = GptOssConfig(
        **SIZES,
        head_dim=8,
        num_key_value_heads=2,
        num_local_experts=2,
        num_experts_per_tok=1,
        sliding_window=64,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )
    for config in (bloom, sinks):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            policy = CausalPolicy(AutoModelForCausalLM.from_config(config).to(dtype), text)
        assert not supports_shared_prefix(policy, 20)
        rollouts, close = draw(policy), 1e-5 if dtype == torch.float32 else 0.1
        with torch.no_grad():
            torch.testing.assert_close(policy(rollouts).logprobs, rollouts.logprobs, atol=close, rtol=close)


def test_a_model_is_checked_once_and_the_result_is_freed_with_it(text, monkeypatch):
    tried, before = [], len(shared_prefix_decoding._IS_EXACT)
    monkeypatch.setattr(
        shared_prefix_decoding, "_matches_standard", lambda policy: tried.append(policy.inner.config.model_type) or True
    )
    policy = CausalPolicy(make_model("mistral", sliding_window=64), text)
    assert supports_shared_prefix(policy, 20)
    assert supports_shared_prefix(policy, 30)
    assert not supports_shared_prefix(policy, 65)
    assert tried == ["mistral"]
    del policy
    gc.collect()
    assert len(shared_prefix_decoding._IS_EXACT) <= before


def test_sampling_restores_the_attention_of_the_model(llama):
    before = llama.inner.config._attn_implementation
    draw(llama)
    assert llama.inner.config._attn_implementation == before == "sdpa"


@pytest.mark.parametrize("full", [0.0, 1.0])
def test_results_do_not_depend_on_the_compaction_threshold(llama, monkeypatch, full):
    expected = draw(llama, group=8)
    monkeypatch.setattr(continuous_batching, "COMPACTION_THRESHOLD", full)
    found = draw(llama, group=8)
    assert answers(found) == answers(expected)
    torch.testing.assert_close(found.logprobs, expected.logprobs, atol=1e-5, rtol=1e-5)
    assert torch.equal(found.truncated, expected.truncated)


# --- inverse-CDF sampling ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vocabulary", [3, 128, 129, 5000])
def test_inverse_cdf_finds_the_first_token_above_the_number(vocabulary):
    rng = torch.Generator().manual_seed(vocabulary)
    probabilities = torch.rand(200, vocabulary, generator=rng) ** 8
    probabilities[:, torch.randperm(vocabulary, generator=rng)[: vocabulary // 3]] = 0.0
    uniform = torch.rand(200, generator=rng).double()
    sums = probabilities.double().cumsum(-1)
    expected = [int((row > u * row[-1]).nonzero()[0]) for row, u in zip(sums, uniform, strict=True)]
    assert inverse_cdf_sample(probabilities, uniform).tolist() == expected


@pytest.mark.parametrize("uniform", [0.0, 1.0 - 2.0**-24, 1.0])
def test_inverse_cdf_never_returns_a_token_of_probability_zero(uniform):
    probabilities = torch.zeros(3, 1000)
    probabilities[0, [5, 130, 700]] = torch.tensor([1e-30, 0.3, 1e-38])
    probabilities[1, 999] = 1.0
    probabilities[2, 0] = 1.0
    found = inverse_cdf_sample(probabilities, torch.full((3,), uniform).double())
    assert (probabilities[torch.arange(3), found] > 0).all()
