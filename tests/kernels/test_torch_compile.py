"""Compiled blocks equal the model's values, gradients and answers, and are not recompiled for each shape.

All but one test run the graphs as they are found, without a C++ compiler.
"""

import copy
import shutil
from os import environ

import pytest
import torch
from safetensors.torch import load_file
from small_models import batch, make_model, prompts_of
from torch import nn

from alignbench.core.errors import UserError
from alignbench.core.protocols import Critic
from alignbench.generation.sampler import Sampler
from alignbench.kernels import onednn
from alignbench.kernels.hardware import Hardware
from alignbench.kernels.torch_compile import compile_blocks
from alignbench.models import critic as critics
from alignbench.models.loading import Lora, Pretrained, Tiny, save
from alignbench.models.policy import CausalPolicy

DYNAMO = "eager"
CXX = environ.get("CXX", "g++")
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
SHARED = [[5, 6, 7, 8, 9, 10, 11, 12]]  # a prompt so long that its answers are packed
SHAPES = [
    batch(),
    batch(SHARED * 4),
    batch(SHARED * 3, [[3, 4, 1], [9] * 7, [2, 2]]),
    batch([[3]], [[4, 1]]),
    batch([[3, 4]] * 3, [[4, 5], [5], [6, 7, 1]]),
]


def make(text, compiled, name="llama", writing=False, **changes):
    model = make_model(name, **changes)
    if compiled:
        compile_blocks(model, compiled, include_decoding=writing)
    return CausalPolicy(model, text)


def learn(policy, rows):
    """The outputs of a policy, and the gradient of a random linear function of them."""
    now = policy(rows)
    parts = [now.logprobs, now.entropy] + ([] if now.values is None else [now.values])
    total = [(part * torch.randn(part.shape, generator=torch.Generator().manual_seed(0))).mean() for part in parts]
    sum(total).backward()
    gradients = {name: p.grad for name, p in policy.trainable()}
    for _, p in policy.trainable():
        p.grad = None
    return [part.detach() for part in parts], gradients


def agree(found, expected):
    for ours, theirs in zip(found[0], expected[0], strict=True):
        torch.testing.assert_close(ours, theirs, **TOLERANCE)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        torch.testing.assert_close(found[1][name], gradient, msg=name, **TOLERANCE)


def draw(policy, tokens=6, group=3, **how):
    return Sampler(policy=policy, max_new_tokens=tokens, temperature=1.0, **how)(prompts_of(), group, 7)


def graphs():
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


@pytest.fixture(autouse=True)
def nothing_compiled_yet():
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()


@pytest.mark.skipif(shutil.which(CXX) is None, reason=f"there is no C++ compiler {CXX} here")
def test_compiled_values_and_gradients_are_the_same(text):
    ours, theirs = (make(text, None, num_hidden_layers=1) for _ in range(2))
    compile_blocks(ours.model)
    agree(learn(ours, SHAPES[1]), learn(theirs, SHAPES[1]))


@pytest.mark.parametrize("writing", [False, True])
def test_other_shapes_and_more_layers_do_not_recompile(text, writing):
    ours, theirs = (make(text, compiled, writing=writing, num_hidden_layers=4) for compiled in (DYNAMO, None))
    assert (ours.shares_prompts, theirs.shares_prompts) == (True, True)
    made = []
    for tokens, rows in ((9, SHAPES), (14, SHAPES[::-1])):
        for each in rows:
            agree(learn(ours, each), learn(theirs, each))
        made.append(graphs())
        assert torch.equal(draw(ours, tokens).responses, draw(theirs, tokens).responses)
        made.append(graphs())
    assert made[0] <= 12, "without and with gradient, one row or more, inputs of the first block with gradient or not"
    assert made[1] <= 30 if writing else made[1] == made[0]
    assert made[3] == made[2] == made[1]


def test_adapters_critic_and_checkpointing_work_with_compiled_blocks(text, tmp_path):
    make_model("llama", num_hidden_layers=1).save_pretrained(tmp_path)
    text.tokenizer.save_pretrained(tmp_path)
    source, found = Pretrained(name="llama", path=str(tmp_path), lora=Lora(rank=4)), []
    for compiled in (True, False):
        model, _ = source.load(texts=(), start=None, device="cpu", seed=0)
        if compiled:
            compile_blocks(model, DYNAMO)
        Hardware(activation_checkpointing=True).apply_checkpointing(model)
        policy = CausalPolicy(
            model, text, critic=critics.make_critic(model, Critic(trunk="separate", hidden=4), seed=0)
        )
        with torch.no_grad():
            for _, p in policy.trainable():
                p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
        found.append(learn(policy, SHAPES[1]))
        save(model, text, tmp_path / str(compiled))
    agree(*found)
    ours, theirs = (load_file(tmp_path / str(compiled) / "adapter_model.safetensors") for compiled in (True, False))
    assert ours.keys() == theirs.keys()


def test_parameter_names_are_kept_and_a_copy_is_compiled(monkeypatch, tmp_path):
    monkeypatch.setattr(onednn, "MIN_WEIGHTS", 1)
    model, text = Tiny(layers=1).load(texts=["1 + 1 = 2"], start=None, device="cpu", seed=0)
    names = list(model.state_dict())
    Hardware(compile=True).apply_kernels(model)
    copied = copy.deepcopy(model)
    (mine,), (other,) = model.model.layers, copied.model.layers
    assert other.forward.__self__ is other
    assert other.forward.__func__ is mine.forward.__func__
    assert not any(type(layer) is onednn.OneDNNLinear for layer in mine.modules())
    assert type(model.lm_head) is (onednn.OneDNNLinear if torch.backends.mkldnn.is_available() else nn.Linear)
    save(copied, text, tmp_path)
    assert list(model.state_dict()) == list(copied.state_dict()) == names
    assert list(type(model).from_pretrained(tmp_path).state_dict()) == names


def test_an_unsupported_machine_raises(monkeypatch):
    with pytest.raises(UserError, match=r"hardware\.compile=true, but transformers marks no blocks in a Linear"):
        compile_blocks(nn.Linear(2, 2))
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    for refused in (Hardware(device="cpu", compile=True).prepare, Hardware(device="cpu", compile=True).require):
        with pytest.raises(UserError, match=r"torch.compile fails for cpu.*hardware\.compile=false"):
            refused()
    Hardware(device="cpu").prepare()


def test_compiled_runs_are_not_bitwise_deterministic():
    assert Hardware(device="cpu").determinism == "bitwise"
    assert Hardware(device="cpu", compile=True).determinism == "seeded"
