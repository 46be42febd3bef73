"""Log-probabilities equal those of a plain forward pass, whatever the batch and its padding."""

from dataclasses import replace

import pytest
import torch
from small_models import (
    EOS,
    PAD,
    PROMPTS,
    RESPONSES,
    VOCABULARY,
    batch,
    logprobs_by_hand,
    make_model,
    make_text,
    markov_model,
)

from alignbench.core.protocols import Critic
from alignbench.models import critic as critics
from alignbench.models.policy import CausalPolicy

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
PAIRS = list(zip(PROMPTS, RESPONSES, strict=True))


def with_critic(model, text, critic):
    return CausalPolicy(model, text, critic=critic and critics.make_critic(model, critic, seed=0))


@torch.no_grad()
def read(policy, *pairs, pad=PAD):
    return policy(batch([p for p, _ in pairs], [r for _, r in pairs], pad))


def test_a_batch_gives_the_log_probabilities_of_a_plain_forward(policy):
    together = read(policy, *PAIRS).logprobs
    for row, (prompt, response) in zip(together, PAIRS, strict=True):
        torch.testing.assert_close(
            row[: len(response)].double(), logprobs_by_hand(policy.model, prompt, response), **CLOSE
        )
        assert (row[len(response) :] == 0).all()


def test_a_single_sequence_equals_the_sequence_in_a_batch(policy):
    together = read(policy, *PAIRS)
    for i, (prompt, response) in enumerate(PAIRS):
        alone = read(policy, (prompt, response))
        torch.testing.assert_close(alone.logprobs[0], together.logprobs[i, : len(response)], **CLOSE)
        torch.testing.assert_close(alone.entropy[0], together.entropy[i, : len(response)], **CLOSE)


@pytest.mark.parametrize("extra", [1, 9])
def test_more_left_padding_changes_nothing(policy, extra):
    plain = batch()
    wider = replace(plain, prompts=torch.cat([torch.full((len(plain), extra), PAD), plain.prompts], dim=1))
    with torch.no_grad():
        assert torch.equal(policy(plain).logprobs, policy(wider).logprobs)


@pytest.mark.parametrize("pad", [EOS, 7, VOCABULARY - 1])
def test_the_padding_token_does_not_matter(policy, pad):
    with torch.no_grad():
        torch.testing.assert_close(policy(batch(pad=pad)).logprobs, policy(batch()).logprobs, atol=0, rtol=0)


def test_tokens_outside_the_mask_do_not_matter(llama):
    plain = batch()
    other = replace(plain, responses=torch.where(plain.mask, plain.responses, 13))
    with torch.no_grad():
        assert torch.equal(llama(plain).logprobs, llama(other).logprobs)


def test_the_models_include_soft_capped_logits():
    model = make_model("gemma2")
    with torch.no_grad():
        capped = model(input_ids=torch.tensor([PROMPTS[0]])).logits
        model.config.final_logit_softcapping = None
        free = model(input_ids=torch.tensor([PROMPTS[0]])).logits
    assert capped.abs().max() < 2.0 < free.abs().max()


def test_the_models_include_a_sliding_window():
    tokens = torch.tensor([list(range(2, 14))])
    with torch.no_grad():
        near = make_model("mistral")(input_ids=tokens).logits
        far = make_model("mistral", sliding_window=64)(input_ids=tokens).logits
    assert (near - far).abs().max() > 0.01


def test_each_token_is_scored_at_the_position_that_predicts_it():
    chances = torch.rand(8, 8, generator=torch.Generator().manual_seed(0)) + 0.05
    chances = chances / chances.sum(1, keepdim=True)
    policy = CausalPolicy(markov_model(chances), make_text(pad_is_eos=True))
    now = read(policy, ([2, 3], [4, 5, 1]), ([6, 7, 2, 2], [3]), pad=EOS)
    expected = torch.stack([chances[3, 4], chances[4, 5], chances[5, 1]]).log()
    torch.testing.assert_close(now.logprobs[0].detach(), expected, **CLOSE)
    torch.testing.assert_close(now.logprobs[1, 0].detach(), chances[2, 3].log(), **CLOSE)
    torch.testing.assert_close(now.entropy[1, 0].detach(), -(chances[2] * chances[2].log()).sum(), **CLOSE)


@pytest.mark.parametrize("temperature", [0.6, 1.3])
def test_log_probabilities_are_those_of_the_sampling_temperature(text, temperature):
    policy = CausalPolicy(make_model("llama"), text, temperature=temperature)
    found = read(policy, PAIRS[0]).logprobs[0].double()
    torch.testing.assert_close(found, logprobs_by_hand(policy.model, *PAIRS[0], temperature), **CLOSE)


def test_a_bfloat16_model_returns_float32(text):
    policy = with_critic(make_model("llama").bfloat16(), text, Critic())
    now = policy(batch())
    assert now.logprobs.dtype == now.entropy.dtype == now.values.dtype == torch.float32
    for row, (prompt, response) in zip(now.logprobs, PAIRS, strict=True):
        by_hand = logprobs_by_hand(make_model("llama"), prompt, response).float()
        torch.testing.assert_close(row[: len(response)].detach(), by_hand, atol=0.15, rtol=0.05)


def test_only_masked_tokens_pass_the_head(policy):
    rows = []
    hook = policy.lm_head.register_forward_hook(lambda _, args, __: rows.append(args[0].shape[:-1].numel()))
    try:
        read(policy, *PAIRS)
    finally:
        hook.remove()
    assert rows == [sum(map(len, RESPONSES))]


class Loud(type(make_model("llama"))):
    """A model with a nonlinear function after the head."""

    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out.logits = 1.5 * out.logits
        return out


@pytest.mark.parametrize("critic", [None, Critic(hidden=4)])
def test_a_nonlinear_head_falls_back_to_the_logits(text, critic):
    model = Loud(make_model("llama").config)
    policy = with_critic(model, text, critic)
    now = policy(batch())
    for row, (prompt, response) in zip(now.logprobs, PAIRS, strict=True):
        by_hand = logprobs_by_hand(model, prompt, response).float()
        torch.testing.assert_close(row[: len(response)].detach(), by_hand, **CLOSE)
    (now.logprobs.sum() + (0.0 if critic is None else now.values.sum())).backward()
    assert model.lm_head.weight.grad.abs().max() > 0


def test_the_critic_gets_the_same_states_with_either_head(text):
    plain, loud = make_model("llama"), Loud(make_model("llama").config)
    loud.load_state_dict(plain.state_dict())
    policies = [with_critic(model, text, Critic(hidden=0)) for model in (plain, loud)]
    for policy in policies:
        torch.nn.init.constant_(policy.critic.head[0].weight, 0.1)
    one, other = (policy(batch()).values for policy in policies)
    assert one.abs().max() > 0
    torch.testing.assert_close(one, other, **CLOSE)


@pytest.mark.parametrize("hidden", [0, 8])
def test_values_start_at_zero_and_are_trainable(text, hidden):
    policy = with_critic(make_model("llama"), text, Critic(hidden=hidden))
    values = policy(batch()).values
    assert (values == 0).all()
    (values - 1).square().sum().backward()
    assert policy.critic.head[-1].weight.grad.abs().max() > 0
    assert {name for name, _ in policy.critic_parameters()} < {name for name, _ in policy.trainable()}
