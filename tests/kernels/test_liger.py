"""Liger's kernels equal the model's values and gradients; run by Triton's interpreter if both are installed.

pip install --no-deps liger-kernel triton
TRITON_INTERPRET=1 python -m pytest tests/kernels/test_liger.py
"""

import copy
import importlib.util
import sys
from os import environ
from types import ModuleType

import pytest
import torch
from small_models import batch, make_model, prompts_of
from transformers.models.llama import modeling_llama

from alignbench.core.errors import UserError
from alignbench.generation.sampler import Sampler
from alignbench.kernels import liger
from alignbench.kernels.activation_checkpointing import checkpoint_blocks
from alignbench.kernels.hardware import Hardware
from alignbench.models.policy import CausalPolicy

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
INSTALLED = all(importlib.util.find_spec(package) for package in ("liger_kernel", "triton"))


@pytest.fixture
def interpreted(monkeypatch):
    """Kernels on the CPU. The interpreter has no libdevice, and does not convert Python floats."""
    if not INSTALLED or environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("liger-kernel, triton and TRITON_INTERPRET=1 are not all here")
    for name in ("apply_rotary_pos_emb", "LlamaRMSNorm", "LlamaMLP"):
        monkeypatch.setattr(modeling_llama, name, getattr(modeling_llama, name))  # restored afterwards
    import triton.language as tl
    from liger_kernel.ops import rms_norm
    from triton.runtime import interpreter

    converted = interpreter._implicit_cvt

    def number(value):
        if not isinstance(value, float):
            return converted(value)
        handle = interpreter.TensorHandle(torch.tensor([value]).numpy(), tl.float32)
        return tl.tensor(handle, tl.float32)

    monkeypatch.setattr(interpreter, "_implicit_cvt", number)
    monkeypatch.setattr(rms_norm, "rsqrt", lambda x: 1 / tl.sqrt(x))


def learn(model, text, rows):
    policy = CausalPolicy(model, text)
    assert policy.shares_prompts
    now = policy(rows)
    (now.logprobs * torch.arange(1, len(rows) + 1)[:, None] + now.entropy).mean().backward()
    sampled = Sampler(policy=policy, max_new_tokens=4, temperature=1.0)(prompts_of(), 2, 7).responses
    return now.logprobs.detach(), {name: p.grad for name, p in policy.trainable()}, sampled


@pytest.mark.parametrize("checkpointing", [False, True])
def test_numbers_gradients_and_answers_are_the_same(interpreted, text, checkpointing):
    rows = batch([[5, 6, 7, 8, 9, 10, 11, 12]] * 4)  # packed into one row
    expected = learn(make_model("llama", num_hidden_layers=1), text, rows)
    model = make_model("llama", num_hidden_layers=1)
    names = list(model.state_dict())
    liger.use_liger(model)
    if checkpointing:
        checkpoint_blocks(model)
    copied = copy.deepcopy(model)
    for each in (model, copied):
        logprobs, gradients, sampled = learn(each, text, rows)
        torch.testing.assert_close(logprobs, expected[0], **TOLERANCE)
        assert gradients.keys() == expected[1].keys()
        for name, gradient in expected[1].items():
            torch.testing.assert_close(gradients[name], gradient, msg=name, **TOLERANCE)
        assert torch.equal(sampled, expected[2])
        assert list(each.state_dict()) == names
    assert "Liger" in str(copied.model.layers[0].input_layernorm)
    assert modeling_llama.apply_rotary_pos_emb.__module__.startswith("liger_kernel")


def test_an_unsupported_machine_raises(monkeypatch):
    monkeypatch.setattr(liger, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'alignbench\[liger\]'.*hardware\.liger=false"):
        Hardware(device="cpu", liger=True).prepare()
    monkeypatch.setattr(liger, "find_spec", lambda name: name)
    with pytest.raises(UserError, match=r"on the CPU.*hardware\.liger=false"):
        Hardware(device="cpu", liger=True).require()
    with pytest.raises(UserError, match=r"hardware\.compile=true and hardware\.liger=true"):
        Hardware(compile=True, liger=True)


def test_an_unsupported_architecture_raises(monkeypatch):
    if not INSTALLED:
        patches = ModuleType("liger_kernel.transformers.monkey_patch")
        patches.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": None, "qwen2": None}
        for name in ("liger_kernel", "liger_kernel.transformers"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setitem(sys.modules, patches.__name__, patches)
    liger.check_architecture("llama")
    with pytest.raises(UserError, match=r"no kernels for a model of type gpt2, only for .*llama.*liger=false"):
        liger.check_architecture("gpt2")
