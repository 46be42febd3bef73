"""Linear layers by oneDNN equal those of torch, gradients included, and do not change the model otherwise."""

import copy
import os

import pytest
import torch
from small_models import make_model, prompts_of
from torch import nn
from torch.nn.functional import linear

from alignbench.generation.sampler import Sampler
from alignbench.kernels import onednn as module
from alignbench.kernels.onednn import OneDNNLinear, prepacked_weights, use_onednn
from alignbench.models.loading import Tiny
from alignbench.models.policy import CausalPolicy

CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch comes without oneDNN here")


@pytest.fixture
def calls(monkeypatch):
    """Shapes of the products that oneDNN computes."""
    found, product = [], module.linear

    def recorded(inputs, weight, bias=None):
        found.append((tuple(inputs.shape), tuple(weight.shape)))
        return product(inputs, weight, bias)

    monkeypatch.setattr(module, "linear", recorded)
    return found


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_sampler_and_update_agree_with_onednn(name, text, monkeypatch, calls):
    monkeypatch.setattr(module, "MIN_WEIGHTS", 1)
    monkeypatch.setattr(module, "LARGE_WEIGHTS", 1)
    policy = CausalPolicy(use_onednn(make_model(name)), text)
    calls.clear()
    rollouts = Sampler(policy=policy, max_new_tokens=12, temperature=1.0)(prompts_of(), 3, 7)
    assert calls
    with torch.no_grad():
        torch.testing.assert_close(policy(rollouts).logprobs, rollouts.logprobs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(108,), (4, 27), (2, 3, 18)])
def test_products_and_gradients_equal_those_of_torch(bias, shape, calls):
    layer = use_onednn(nn.Sequential(nn.Linear(300, 200, bias=bias)))[0]
    inputs = torch.randn(*shape, 300, requires_grad=True)
    grad = torch.randn(200, *shape).movedim(0, -1)  # not contiguous, as gradients may be
    leaves = [inputs, *layer.parameters()]
    ours, theirs = layer(inputs), linear(inputs, layer.weight, layer.bias)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for found, expected in zip(*(torch.autograd.grad(out, leaves, grad) for out in (ours, theirs)), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert len(calls) == 3  # forward, gradient of the inputs, gradient of the weight


def test_expanded_gradients_are_supported():
    layer = use_onednn(nn.Sequential(nn.Linear(300, 200)))[0]
    inputs = torch.randn(108, 300)
    layer(inputs).sum().backward()
    torch.testing.assert_close(layer.weight.grad, inputs.sum(0).expand(200, 300), atol=1e-4, rtol=1e-4)


def test_unneeded_gradients_are_not_computed(calls):
    layer = use_onednn(nn.Sequential(nn.Linear(300, 200)))[0].requires_grad_(False)
    inputs = torch.randn(108, 300, requires_grad=True)
    layer(inputs).sum().backward()
    assert len(calls) == 2
    assert layer.weight.grad is None
    assert layer.bias.grad is None


@pytest.mark.parametrize("configured", [None, "7"])
def test_the_primitive_cache_is_small_unless_configured(configured, monkeypatch):
    monkeypatch.delenv(CAPACITY, raising=False)
    if configured is not None:
        monkeypatch.setenv(CAPACITY, configured)
    use_onednn(nn.Sequential())
    assert os.environ[CAPACITY] == (configured or str(module.CACHED_PRIMITIVES))


def test_small_derived_and_16_bit_layers_are_not_converted():
    class Derived(nn.Linear):
        """A derived class."""

    model = use_onednn(
        nn.Sequential(
            nn.Linear(127, 128), nn.Linear(512, 256), Derived(512, 256), nn.Linear(512, 256, dtype=torch.bfloat16)
        )
    )
    assert [type(layer) for layer in model] == [nn.Linear, OneDNNLinear, Derived, nn.Linear]


@pytest.mark.parametrize(("outputs", "rows", "filled"), [
    (200, 95, None), (200, 96, 96), (200, 97, 112), (200, 129, 160), (200, 1024, 1024), (200, 1025, 1088),
    (600, 5, None), (600, 6, 16), (600, 129, 144), (600, 1025, 1088)])  # fmt: skip
def test_the_number_of_rows_decides_the_kernel_and_is_padded(outputs, rows, filled, calls):
    layer = use_onednn(nn.Sequential(nn.Linear(300, outputs)))[0]
    inputs = torch.randn(1, rows, 300)
    for _ in range(2):
        torch.testing.assert_close(layer(inputs), linear(inputs, layer.weight, layer.bias), atol=1e-5, rtol=1e-5)
    assert [shape[0][-2] for shape in calls] == ([] if filled is None else [filled] * 2)


def test_constant_weights_are_prepacked_once_and_freed(calls, monkeypatch):
    model = use_onednn(nn.Sequential(nn.Linear(300, 600), nn.ReLU(), nn.Linear(600, 200)))
    inputs, prepacked = torch.randn(8, 300), []
    prepack = torch.ops.mkldnn._reorder_linear_weight
    monkeypatch.setattr(module, "prepack", lambda weight: prepacked.append(weight) or prepack(weight))
    with torch.no_grad():
        for _ in range(2):
            expected = model(inputs)
            with prepacked_weights(model):
                for _ in range(3):
                    torch.testing.assert_close(model(inputs), expected, atol=1e-5, rtol=1e-5)
            model[0].weight += 1
    assert [id(weight) for weight in prepacked] == [id(model[0].weight)] * 2  # the other layer is small
    assert all(layer.prepacked is None for layer in (model[0], model[2]))


def test_prepacked_weights_can_be_trained():
    layer = use_onednn(nn.Sequential(nn.Linear(300, 600)))[0]
    inputs = torch.randn(8, 300)
    with prepacked_weights(layer):
        layer(inputs).sum().backward()
    torch.testing.assert_close(layer.weight.grad, inputs.sum(0).expand(600, 300), atol=1e-4, rtol=1e-4)


def test_a_loaded_model_uses_onednn_and_is_saved_and_copied_as_usual(tmp_path):
    model, _ = Tiny(layers=1).load(texts=["1 + 1 = 2"], start=None, device="cpu", seed=0)
    fast = {name for name, layer in model.named_modules() if type(layer) is OneDNNLinear}
    assert "model.layers.0.mlp.up_proj" in fast
    assert {name for name, layer in copy.deepcopy(model).named_modules() if type(layer) is OneDNNLinear} == fast
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert all(type(layer) is not OneDNNLinear for layer in again.modules())
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name])
