"""Loading models: quantization, dtype, attention, local folders, and the built-in model."""

import time
import warnings

import pytest
import torch
from small_models import SIZES, batch, make_model
from transformers import AutoModelForCausalLM, GemmaConfig

from alignbench.core.errors import UserError
from alignbench.models.loading import Lora, Pretrained, Tiny
from alignbench.models.policy import CausalPolicy


@pytest.fixture(scope="module")
def gemma(tmp_path_factory, text):
    """A small Gemma on disk; its widths are multiples of 64, the block size of 4-bit weights."""
    config = GemmaConfig(**SIZES | {"hidden_size": 64, "intermediate_size": 64}, num_key_value_heads=2, head_dim=16)
    folder = tmp_path_factory.mktemp("gemma")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    text.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def in_four_bits(gemma):
    source = Pretrained(name="gemma", path=str(gemma), quantization="nf4", lora=Lora(rank=4))
    model, text = source.load(texts=(), start=None, device="cpu", seed=0)
    return CausalPolicy(model, text)


def test_a_quantized_model_stores_four_bits(in_four_bits, gemma):
    linear = in_four_bits.model.get_base_model().model.layers[0].mlp.up_proj.base_layer
    assert linear.weight.dtype == torch.uint8
    assert linear.weight.quant_state.nested, "double quantization"
    assert linear.compute_dtype == torch.float32
    whole = CausalPolicy(AutoModelForCausalLM.from_pretrained(gemma), in_four_bits.text)
    with torch.no_grad():
        pairs = torch.stack([p(batch()).logprobs[batch().mask] for p in (in_four_bits, whole)])
    assert 0.8 < torch.corrcoef(pairs)[0, 1] < 1 - 1e-6


def test_an_adapter_trains_on_four_bits_with_an_exact_reference(in_four_bits):
    policy = in_four_bits
    with torch.no_grad():
        before = policy(batch()).logprobs
        with policy.reference():
            assert torch.equal(policy(batch()).logprobs, before)
    weights = dict(policy.trainable())
    assert weights
    assert all(p.dtype == torch.float32 for p in weights.values())
    with_gradient = policy(batch()).logprobs.detach()
    torch.testing.assert_close(with_gradient, before, atol=1e-4, rtol=1e-4)
    start = policy.state()
    optimizer = torch.optim.SGD(weights.values(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        (-policy(batch()).logprobs.mean()).backward()
        optimizer.step()
    assert all(not torch.equal(start[name], p) for name, p in weights.items())
    with torch.no_grad():
        assert policy(batch()).logprobs.sum() > before.sum()
        with policy.reference():
            assert torch.equal(policy(batch()).logprobs, before)


def test_loading_in_four_bits_is_silent(gemma, capfd):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("default")
        Pretrained(name="gemma", path=str(gemma), quantization="nf4", lora=Lora(rank=4)).load(
            texts=(), start=None, device="cpu", seed=0
        )
    assert "Loading" not in "".join(capfd.readouterr())
    assert not [str(w.message) for w in heard if w.category is UserWarning]


def test_four_bits_need_an_adapter():
    with pytest.raises(UserError, match=r"model\.lora\.rank"):
        Pretrained(name="any", quantization="nf4")


def test_missing_flash_attention_names_the_package():
    with pytest.raises(UserError, match=r"alignbench\[flash\]"):
        Pretrained(name="any", attention="flash_attention_2")


def test_a_path_without_a_model_raises(tmp_path):
    with pytest.raises(UserError, match=rf"model\.path={tmp_path}: no config\.json"):
        Pretrained(name="any", path=str(tmp_path)).require()
    with pytest.raises(UserError, match=r"model\.path"):
        Tiny(path=str(tmp_path / "nowhere")).require()


def test_a_hub_name_without_network_raises_within_seconds(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(UserError, match=r"model\.path=<folder>"):
        Pretrained(name="nobody/nothing").require()
    assert time.monotonic() - start < 5


def test_a_folder_without_a_model_raises_user_error(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match=r"(?s)cannot be loaded from .*model\.path"):
        Pretrained(name="any", path=str(tmp_path)).load(texts=(), start=None, device="cpu", seed=0)


def test_a_folder_with_a_model_passes(checkpoint):
    Pretrained(name="any", path=str(checkpoint)).require()


@pytest.mark.parametrize(
    ("dtype", "device", "lora", "expected"),
    [
        ("auto", "cpu", None, torch.float32),
        ("auto", "cpu", Lora(), torch.float32),
        ("auto", "cuda", None, torch.float32),
        ("auto", "cuda", Lora(), torch.bfloat16),
        ("float16", "cuda", None, torch.float16),
        ("bfloat16", "cpu", None, torch.bfloat16),
    ],
)
def test_dtype_depends_on_device_and_adapter(dtype, device, lora, expected):
    source = Pretrained(name="any", dtype=dtype, lora=lora)
    assert source.resolve_dtype(device) == expected
    assert source.is_exact(device) == (expected == torch.float32)


def test_configured_dtype_and_attention_are_used(checkpoint):
    source = Pretrained(name="any", path=str(checkpoint), dtype="bfloat16", attention="eager")
    model, _ = source.load(texts=(), start=None, device="cpu", seed=0)
    assert model.dtype == torch.bfloat16
    assert model.config._attn_implementation == "eager"


def test_the_context_length_is_that_of_the_model(checkpoint, gemma):
    for folder in (checkpoint, gemma):
        _, text = Pretrained(name="any", path=str(folder)).load(texts=(), start=None, device="cpu", seed=0)
        assert text.context == 64


def test_the_built_in_model_is_deterministic():
    source = Tiny(hidden=16, layers=1, heads=2, intermediate=16, vocabulary=300)
    texts = ["1 + 2 = 3", "the sum of 4 and 5 is 9"] * 20
    torch.manual_seed(5)
    model, text = source.load(texts=texts, start=None, device="cpu", seed=1)
    torch.manual_seed(6)
    again, _ = source.load(texts=texts, start=None, device="cpu", seed=2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert text.decode(text.encode_completion("4 + 5 = 9")) == "4 + 5 = 9"
    assert (text.pad, text.eos, text.suppressed, text.stops) == (0, 1, (0,), (1,))
    assert model.get_input_embeddings().num_embeddings == len(text.tokenizer)


def test_the_built_in_model_can_be_loaded_from_a_folder(checkpoint):
    model, _ = Tiny(path=str(checkpoint)).load(texts=(), start=None, device="cpu", seed=0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), make_model("llama").parameters(), strict=True))


def test_folders_with_other_weights_have_other_hashes(tmp_path):
    hashes = []
    for content in (b"aaa", b"bbb", b"aaa"):
        (tmp_path / "model.safetensors").write_bytes(content)
        hashes.append(Pretrained(name="small", path=str(tmp_path)).base_hashes("cpu"))
    assert hashes[0] == hashes[2] != hashes[1]
