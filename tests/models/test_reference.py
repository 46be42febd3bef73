"""The reference equals the initial policy bit for bit, through training, saving and loading."""

import copy

import pytest
import torch
from peft import PeftModel
from small_models import batch, make_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignbench.core.adapters import FROZEN
from alignbench.core.protocols import Critic
from alignbench.models import critic as critics
from alignbench.models.loading import Lora, Pretrained, save
from alignbench.models.policy import CausalPolicy

RATE = 0.1


def load(checkpoint, *, start=None, lora=True, dropout=0.0, critic=None):
    """A policy constructed as in a run."""
    source = Pretrained(name="small", path=str(checkpoint), lora=Lora(rank=4, dropout=dropout) if lora else None)
    model, text = source.load(texts=(), start=start, device="cpu", seed=0)
    policy = CausalPolicy(model, text, critic=critic and critics.make_critic(model, critic, seed=0))
    policy.freeze_reference()
    return policy


def learn(policy, steps=2):
    """A few steps that increase the probability of the batch; the first step of an adapter moves only half of it."""
    optimizer = torch.optim.SGD([p for _, p in policy.trainable()], lr=RATE)
    for _ in range(steps):
        optimizer.zero_grad()
        (-policy(batch()).logprobs.mean()).backward()
        optimizer.step()


@torch.no_grad()
def read(policy):
    return policy(batch()).logprobs


@torch.no_grad()
def read_reference(policy):
    with policy.reference():
        return policy(batch()).logprobs


def frozen_adapter(policy):
    return {name: p.detach().clone() for name, p in policy.model.named_parameters() if f".{FROZEN}." in name}


@pytest.fixture(scope="module")
def learned(checkpoint, tmp_path_factory):
    """Folders of a trained policy: an adapter, and all weights."""
    folders = {}
    for kind, lora in (("adapter", True), ("full", False)):
        policy = load(checkpoint, lora=lora)
        learn(policy)
        folders[kind] = tmp_path_factory.mktemp(kind)
        save(policy.model, policy.text, folders[kind])
    return folders


@pytest.fixture(params=["fresh adapter", "learned adapter", "all weights", "all learned weights"])
def policy(request, checkpoint, learned):
    start = {"learned adapter": learned["adapter"], "all learned weights": learned["full"]}.get(request.param)
    return load(checkpoint, start=start, lora="adapter" in request.param, critic=Critic(hidden=4))


def test_initially_policy_and_reference_are_equal(policy):
    assert torch.equal(read(policy), read_reference(policy))


def test_training_changes_the_policy_and_not_the_reference(policy):
    before, frozen = read(policy), frozen_adapter(policy)
    learn(policy)
    assert (read(policy) - before).abs().max() > 1e-3
    assert torch.equal(read_reference(policy), before)
    assert all(torch.equal(frozen[name], p) for name, p in frozen_adapter(policy).items())


def test_using_the_reference_does_not_change_the_policy(policy):
    learn(policy)
    before, trainable = read(policy), {name for name, _ in policy.trainable()}
    read_reference(policy)
    assert torch.equal(read(policy), before)
    assert {name for name, _ in policy.trainable()} == trainable
    (-policy(batch()).logprobs.mean()).backward()
    assert all(p.grad is not None for _, p in policy.policy_parameters())


def test_the_reference_context_is_reentrant(policy):
    learn(policy)
    reference, learned = read_reference(policy), read(policy)
    with policy.reference():
        read_reference(policy)
        assert torch.equal(read(policy), reference)
    assert torch.equal(read(policy), learned)
    assert not torch.equal(reference, learned)


def test_an_error_inside_the_reference_context_restores_the_policy(policy):
    learn(policy)
    before = read(policy)
    with pytest.raises(KeyError), policy.reference():
        raise KeyError
    assert torch.equal(read(policy), before)


def test_the_adapter_is_trainable_and_the_rest_is_frozen(policy):
    names = [name for name, _ in policy.policy_parameters()]
    assert sum(p.numel() for _, p in policy.policy_parameters()) > 0
    assert not any(f".{FROZEN}." in name for name in names)
    if hasattr(policy.model, "peft_config"):
        assert all("lora_" in name for name in names)


def test_a_saved_adapter_is_loaded_with_its_weights(checkpoint, learned):
    fresh, started = load(checkpoint), load(checkpoint, start=learned["adapter"])
    assert (read(fresh) - read(started)).abs().max() > 1e-3
    assert torch.equal(read_reference(started), read(started))


def test_load_restores_a_state(policy, checkpoint):
    learn(policy)
    state, before = policy.state(), read(policy)
    learn(policy)
    assert not torch.equal(read(policy), before)
    policy.load(state)
    assert torch.equal(read(policy), before)
    assert {name for name, _ in policy.trainable()} == set(state)


def test_a_state_is_a_copy(checkpoint):
    policy = load(checkpoint, lora=False)
    state = policy.state()
    kept = copy.deepcopy(state)
    learn(policy)
    assert all(torch.equal(kept[name], value) for name, value in state.items())


def test_peft_loads_a_saved_adapter(checkpoint, learned):
    ours = load(checkpoint, start=learned["adapter"])
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(checkpoint), learned["adapter"])
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(plain(input_ids=ids).logits, ours.model(input_ids=ids).logits, atol=0, rtol=0)
    assert AutoTokenizer.from_pretrained(learned["adapter"]).eos_token_id == ours.text.eos


def test_transformers_loads_saved_weights(checkpoint, learned):
    ours = load(checkpoint, start=learned["full"], lora=False)
    plain = AutoModelForCausalLM.from_pretrained(learned["full"])
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(plain(input_ids=ids).logits, ours.model(input_ids=ids).logits, atol=0, rtol=0)


def test_a_run_on_an_sft_adapter_saves_only_the_trained_one(checkpoint, learned, tmp_path):
    policy = load(checkpoint, start=learned["adapter"])
    learn(policy)
    save(policy.model, policy.text, tmp_path)
    assert not (tmp_path / FROZEN).exists()
    assert torch.equal(read(load(checkpoint, start=tmp_path)), read(policy))


def test_the_seed_initializes_the_adapter(checkpoint):
    def drawn(seed):
        source = Pretrained(name="small", path=str(checkpoint), lora=Lora(rank=4))
        torch.rand(seed + 1)  # the global generator does not matter
        model, _ = source.load(texts=(), start=None, device="cpu", seed=seed)
        return torch.cat([p.flatten() for name, p in model.named_parameters() if "lora_A" in name])

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


def dropping(text, checkpoint, lora):
    model = make_model("gpt2", attn_pdrop=0.5, embd_pdrop=0.5, resid_pdrop=0.5)
    if not lora:
        return CausalPolicy(model, text)
    policy = load(checkpoint, dropout=0.5)
    learn(policy)
    return policy


@pytest.mark.parametrize("lora", [False, True])
def test_dropout_is_active_in_training_only(text, checkpoint, lora):
    policy = dropping(text, checkpoint, lora)
    before = read(policy)
    assert torch.equal(read(policy), before)
    assert torch.equal(policy(batch()).logprobs.detach(), before), "with gradient the ratio is exactly 1"
    with policy.training():
        assert (read(policy) - before).abs().max() > 1e-3
    assert torch.equal(read(policy), before)
