"""What is written, and with which probability: the loop against transformers' own, the update's and plain counting."""

import pytest
import torch
from scipy.stats import chisquare
from small_models import EOS, PAD, PROMPTS, make_model, make_text, markov_model, prompts_of

from alignbench.models.policy import CausalPolicy
from alignbench.models.sampler import Sampler

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


def test_temperature_zero_is_the_greedy_loop_of_transformers(policy):
    prompts = prompts_of()
    seen = torch.arange(prompts.tokens.shape[1])[None] >= (prompts.tokens.shape[1] - prompts.lengths)[:, None]
    written = policy.model.generate(
        prompts.tokens, attention_mask=seen.long(), do_sample=False, max_new_tokens=LIMIT, eos_token_id=EOS,
        pad_token_id=PAD, suppress_tokens=[PAD])[:, prompts.tokens.shape[1]:]
    rollouts = draw(policy, group=1, temperature=0.0)
    expected = [row[: row.index(EOS) + 1] if EOS in row else row for row in written.tolist()]
    assert answers(rollouts) == expected


def test_a_prompt_alone_is_answered_as_in_a_batch(policy):
    together = answers(draw(policy))
    for i, prompt in enumerate(PROMPTS):
        assert answers(draw(policy, [prompt], ids=[i])) == together[3 * i : 3 * i + 3]


def test_a_larger_group_begins_with_the_smaller_one(llama):
    small, large = answers(draw(llama, group=2)), answers(draw(llama, group=5))
    for i in range(len(PROMPTS)):
        assert large[5 * i : 5 * i + 2] == small[2 * i : 2 * i + 2]


def test_a_prompt_that_comes_twice_is_answered_anew(llama):
    once = answers(draw(llama, [PROMPTS[0]], group=6))
    twice = answers(draw(llama, [PROMPTS[0]] * 2, group=3, ids=[0, 0]))
    assert twice == once
    assert twice[:3] != twice[3:]


def test_the_seed_alone_decides(llama):
    first, again, other = draw(llama, seed=1), draw(llama, seed=1), draw(llama, seed=2)
    assert torch.equal(first.responses, again.responses)
    assert torch.equal(first.logprobs, again.logprobs)
    assert answers(first) != answers(other)
    torch.manual_seed(1234)
    assert answers(draw(llama, seed=1)) == answers(first)


def test_siblings_differ(llama):
    written = answers(draw(llama, [PROMPTS[0]], group=64))
    assert len({tuple(answer) for answer in written}) > 55


@pytest.mark.parametrize("pad_is_eos", [False, True])
def test_an_answer_ends_with_the_only_end_token_it_has(pad_is_eos):
    text = make_text(pad_is_eos)
    policy = CausalPolicy(make_model("llama"), text)
    rollouts = draw(policy, group=16)
    written = answers(rollouts)
    assert 0 < rollouts.truncated.sum() < len(rollouts), "some must end and some must be cut"
    for answer, cut in zip(written, rollouts.truncated.tolist(), strict=True):
        assert answer.count(EOS) == (0 if cut else 1)
        assert len(answer) == LIMIT if cut else answer[-1] == EOS
    assert (rollouts.responses[~rollouts.mask] == text.pad).all()


def test_padding_is_never_sampled(llama):
    rollouts = draw(llama, group=64, temperature=5.0)
    assert not (rollouts.responses[rollouts.mask] == PAD).any()


def test_prompts_go_through_untouched(llama):
    given = prompts_of()
    rollouts = draw(llama, group=3)
    assert torch.equal(rollouts.prompts, given.tokens.repeat_interleave(3, 0))
    assert torch.equal(rollouts.prompt_lengths, given.lengths.repeat_interleave(3))
    assert rollouts.group.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [row["id"] for row in rollouts.rows] == [row["id"] for row in given.rows for _ in range(3)]


def test_responses_are_the_sampled_tokens_and_not_their_text_read_again(text):
    """Bytes drawn one by one seldom make characters, so that reading the text again gives other tokens."""
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


def test_tokens_come_as_often_as_they_should():
    chances = torch.tensor([0.0, 0.05, 0.3, 0.02, 0.13, 0.5])
    model = markov_model(chances.clamp(min=1e-30).expand(6, 6))
    policy = CausalPolicy(model, make_text(pad_is_eos=True))
    drawn = draw(policy, [[3, 2]], group=4000, limit=1).responses[:, 0]
    counts = torch.bincount(drawn, minlength=6)
    assert counts[0] == 0
    assert chisquare(counts[1:].numpy(), 4000 * chances[1:].double().numpy()).pvalue > 0.01


def test_temperature_sharpens_what_is_drawn():
    chances = torch.tensor([0.1, 0.1, 0.2, 0.6])
    policy = CausalPolicy(markov_model(chances.expand(4, 4)), make_text(pad_is_eos=True), temperature=0.5)
    drawn = draw(policy, [[3, 2]], group=4000, limit=1, temperature=0.5).responses[:, 0]
    sharper = chances.double() ** 2 / (chances.double() ** 2).sum()
    assert chisquare(torch.bincount(drawn, minlength=4).numpy(), 4000 * sharper.numpy()).pvalue > 0.01
