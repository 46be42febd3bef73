"""Activation checkpointing: equal values and gradients with far less memory."""

import pytest
import torch
from small_models import CONFIGS, batch, make_model, make_scoring, prompts_of

from alignbench.core.errors import UserError
from alignbench.core.protocols import Critic
from alignbench.generation.sampler import Sampler
from alignbench.kernels.activation_checkpointing import checkpoint_blocks
from alignbench.kernels.hardware import Hardware
from alignbench.models import critic as critics
from alignbench.models.loading import Lora, Pretrained
from alignbench.models.policy import CausalPolicy
from alignbench.models.reward_model import RewardModel
from alignbench.planning import memory

CRITICS = {"none": None, "shared": Critic(hidden=4), "separate": Critic(trunk="separate", hidden=4)}
BATCH = batch()


def make(model, text, settings, checkpointing):
    """A policy with random critic weights, with or without activation checkpointing."""
    Hardware(activation_checkpointing=checkpointing).apply_checkpointing(model)
    critic = settings and critics.make_critic(model, settings, seed=0)
    policy = CausalPolicy(model, text, critic=critic)
    with torch.no_grad():
        for _, p in policy.trainable():
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    return policy


def learn(policy):
    """The outputs of a policy, and the gradient of a random linear function of them."""
    now = policy(BATCH)
    parts = [now.logprobs, now.entropy] + ([] if now.values is None else [now.values])
    sum((part * torch.randn(part.shape, generator=torch.Generator().manual_seed(0))).sum() for part in parts).backward()
    return parts, {name: p.grad for name, p in policy.trainable()}


def agree(found, expected):
    for ours, theirs in zip(found[0], expected[0], strict=True):
        assert torch.equal(ours, theirs)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6, rtol=1e-6, msg=name)


@pytest.mark.parametrize("critic", CRITICS)
@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_are_the_same(name, critic, text):
    found, expected = (
        learn(make(make_model(name), text, CRITICS[critic], checkpointing)) for checkpointing in (True, False)
    )
    assert max(float(gradient.abs().max()) for gradient in expected[1].values()) > 0.1
    agree(found, expected)


@pytest.mark.parametrize("critic", CRITICS)
def test_gradients_of_each_adapter_are_the_same(critic, checkpoint, text):
    """The backward pass recomputes each block with the adapter of its forward pass, the policy's or the critic's."""
    source = Pretrained(name="llama", path=str(checkpoint), lora=Lora(rank=4))
    models = [source.load(texts=(), start=None, device="cpu", seed=0)[0] for _ in range(2)]
    found, expected = (
        learn(make(model, text, CRITICS[critic], checkpointing))
        for model, checkpointing in zip(models, (True, False), strict=True)
    )
    assert all(float(gradient.abs().max()) > 0 for gradient in expected[1].values())
    agree(found, expected)


def test_gradients_of_a_reward_model_are_the_same_with_dropout(text):
    found = []
    for checkpointing in (True, False):
        model = make_scoring("llama", attention_dropout=0.5)
        Hardware(activation_checkpointing=checkpointing).apply_checkpointing(model)
        reward_model = RewardModel(model, text)
        with reward_model.training():
            torch.manual_seed(0)
            scores = reward_model(BATCH)
            (scores * torch.arange(1.0, 5.0)).sum().backward()
        with torch.no_grad():
            assert not torch.equal(scores, reward_model(BATCH)), "dropout is active"
        found.append(([scores], {name: p.grad for name, p in reward_model.trainable()}))
    agree(*found)


def test_reference_and_samples_are_the_same(text):
    policies = [make(make_model("llama"), text, None, checkpointing) for checkpointing in (True, False)]
    with torch.no_grad():
        before = policies[0](BATCH).logprobs
    for policy in policies:
        policy.freeze_reference()
        learn(policy)
        with torch.no_grad():
            for _, p in policy.trainable():
                p -= 0.1 * p.grad
    with torch.no_grad(), policies[0].reference():
        assert torch.equal(policies[0](BATCH).logprobs, before)
    drawn = [Sampler(policy=policy, max_new_tokens=6, temperature=1.0)(prompts_of(), 2, 0) for policy in policies]
    assert torch.equal(drawn[0].responses, drawn[1].responses)


@pytest.mark.parametrize("lora", [None, Lora(rank=4)])
def test_activations_take_far_less_memory_also_in_the_estimate(lora):
    source, shape = Pretrained(name="x"), CONFIGS["llama"]()
    shape.num_hidden_layers = 8
    counted = {}
    for checkpointing in (True, False):
        meta = memory.make_meta_model(source, texts=(), device="cpu", config=shape, lora=lora)
        Hardware(activation_checkpointing=checkpointing).apply_checkpointing(meta.model)
        counted[checkpointing] = memory.training_memory(meta, rows=8, length=48, answer=24)
    assert counted[True] < 0.4 * counted[False]


def test_a_model_without_blocks_raises():
    with pytest.raises(UserError, match=r"activation_checkpointing.*Linear"):
        checkpoint_blocks(torch.nn.Linear(2, 2))
