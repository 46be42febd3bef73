"""Linear layers by oneDNN: the same numbers, and the model afterwards as it was."""

import pytest
import torch
from small_models import make_model, prompts_of
from torch import nn

from alignbench.models import onednn as module
from alignbench.models.onednn import onednn
from alignbench.models.policy import CausalPolicy
from alignbench.models.sampler import Sampler

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch comes without oneDNN here")


def replaced(model):
    return [name for name, part in model.named_modules() if "forward" in vars(part)]


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_the_sampler_agrees_with_the_update_by_oneDNN_too(name, text, monkeypatch):
    monkeypatch.setattr(module, "SMALLEST", 1)
    policy = CausalPolicy(make_model(name), text)
    with onednn(policy.model):
        linear = [name for name, part in policy.model.named_modules() if type(part) is nn.Linear]
        assert replaced(policy.model) == linear != []
    rollouts = Sampler(policy=policy, max_new_tokens=12, temperature=1.0)(prompts_of(), 3, 7)
    with torch.no_grad():
        torch.testing.assert_close(policy(rollouts).logprobs, rollouts.logprobs, atol=1e-5, rtol=1e-5)
    assert replaced(policy.model) == []


def test_products_are_those_of_torch_and_the_bias_is_added(monkeypatch):
    monkeypatch.setattr(module, "SMALLEST", 1)
    layer, inputs = nn.Linear(300, 200), torch.randn(7, 1, 300)
    with torch.no_grad():
        expected = layer(inputs)
        with onednn(layer):
            torch.testing.assert_close(layer(inputs), expected, atol=1e-5, rtol=1e-5)


def test_small_layers_and_layers_that_are_not_fp32_stay_as_they_are():
    model = nn.Sequential(nn.Linear(256, 511), nn.Linear(512, 256), nn.Linear(512, 256, dtype=torch.bfloat16))
    with onednn(model):
        assert replaced(model) == ["1"]


def test_a_mistake_while_it_is_open_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Linear(512, 512))
    with pytest.raises(RuntimeError, match="on the way"), onednn(model):
        raise RuntimeError("on the way")
    assert replaced(model) == []
