"""Memory estimates on the meta device equal the memory of the same model in real computations."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoints import make_checkpoint
from transformers import AutoModelForCausalLM, LlamaConfig

from alignbench.kernels import chunked_lm_head, hardware, logprobs, onednn
from alignbench.kernels.chunked_lm_head import LMHead
from alignbench.kernels.hardware import Hardware
from alignbench.kernels.logprobs import token_logprobs
from alignbench.models.loading import Lora, Pretrained, Tiny
from alignbench.planning import memory

TEXTS = ["1 + 2 = 3", "4 + 5 = 9"]
SHAPE = LlamaConfig(
    vocab_size=1000,
    hidden_size=64,
    intermediate_size=160,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
)
WORDY = LlamaConfig(vocab_size=20_000, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4)


@pytest.mark.parametrize("kind", ["deepseek_math", "gemma", "qwen2_5"])
def test_weight_and_adapter_bytes_equal_those_of_the_loaded_model(kind: str, tmp_path: Path) -> None:
    source = Pretrained(name=kind, path=str(make_checkpoint(kind, tmp_path, TEXTS)), lora=Lora(rank=4))
    real, _ = source.load(texts=(), start=None, device="cpu", seed=0)
    counted = memory.make_meta_model(source, texts=(), device="cpu", lora=source.lora)
    base, adapter = (
        memory.nbytes(p for name, p in real.named_parameters() if ("lora_" in name) is own) for own in (False, True)
    )
    assert (counted.weights, counted.adapter, counted.trained) == (base, adapter, adapter)


def test_the_built_in_model_is_counted() -> None:
    real, _ = Tiny().load(texts=TEXTS, start=None, device="cpu", seed=0)
    counted = memory.make_meta_model(Tiny(), texts=TEXTS, device="cpu")
    assert counted.weights == counted.trained == memory.nbytes(real.parameters())
    assert not counted.adapter


def test_four_bits_are_an_eighth_of_float32_except_head_and_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignbench.models.loading._installed", lambda package: True)
    whole, packed = (
        memory.make_meta_model(
            Pretrained(name="x", dtype="float32", quantization=bits, lora=Lora()),
            texts=(),
            device="cpu",
            config=SHAPE,
            lora=Lora(),
        )
        for bits in ("none", "nf4")
    )
    linear = 3 * (64 * (64 + 32 + 32 + 64) + 3 * 64 * 160)
    assert whole.weights - packed.weights == pytest.approx(linear * (4 - memory.NF4), abs=1)
    assert (whole.largest_dequantized, packed.largest_dequantized) == (0, 4 * 64 * 160)


def test_the_cache_has_each_prompt_once_and_capacity_for_every_answer() -> None:
    counted = memory.make_meta_model(Pretrained(name="x"), texts=(), device="cpu", config=SHAPE)
    found = memory.generation_memory(counted, prompts=3, group=4, prompt=50, answer=33)
    bytes_per_token = 2 * 3 * 2 * 16 * 4  # keys and values, layers, heads, width, bytes
    assert found.cache == (3 * 50 + 12 * 64) * bytes_per_token
    joined = memory.generation_memory(counted, prompts=3, group=4, prompt=50, answer=33, later=5)
    assert joined.cache == (8 * 50 + 12 * 64) * bytes_per_token


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("lora", [None, Lora(rank=4)])
@pytest.mark.parametrize("tile", [logprobs.TILE_LOGITS, 1 << 13])
def test_training_memory_on_the_meta_device_equals_that_of_real_training(
    tile: int, lora: Lora | None, checkpointing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logprobs, "TILE_LOGITS", tile)
    monkeypatch.setattr(chunked_lm_head, "MIN_TILE_WIDTH", 64)
    source = Pretrained(name="llama", path=str(make_checkpoint("deepseek_math", tmp_path, TEXTS)), lora=lora)
    hardware = Hardware(activation_checkpointing=checkpointing)
    shapes = memory.make_meta_model(source, texts=(), device="cpu", lora=lora)
    hardware.apply_checkpointing(shapes.model)
    counted = memory.training_memory(shapes, rows=8, length=48, answer=24)
    model, text = source.load(texts=(), start=None, device="cpu", seed=0)
    hardware.apply_checkpointing(model)
    inner = model.get_base_model() if lora else model
    with memory.LiveTensorCounter(model.parameters()) as alive:
        hidden = inner.base_model(input_ids=torch.zeros(8, 48, dtype=torch.long), use_cache=False).last_hidden_state
        logp, entropy = token_logprobs(
            hidden[:, -24:].flatten(0, 1),
            torch.zeros(192, dtype=torch.long),
            LMHead(inner.lm_head),
            vocabulary=inner.lm_head.weight.shape[0],
            temperature=1.0,
            suppressed=(),
        )
        (logp + entropy).sum().backward()
    assert counted == pytest.approx(alive.peak, rel=0.1)


def test_logits_take_a_tile_on_a_cpu_and_a_slice_on_a_gpu() -> None:
    counted = memory.make_meta_model(
        Pretrained(name="x", lora=Lora()), texts=(), device="cpu", config=WORDY, lora=Lora()
    )
    found = {
        device: memory.training_memory(replace(counted, device=device), rows=16, length=65, answer=64)
        for device in ("cpu", "cuda")
    }
    logits = 16 * 64 * WORDY.vocab_size * 4
    assert found["cpu"] < logits / 2 < 2 * logits < found["cuda"] < 4 * logits


def test_large_weights_are_prepacked_in_generation_on_a_cpu() -> None:
    wide, source = LlamaConfig(**SHAPE.to_dict() | {"hidden_size": 256, "head_dim": 64}), Pretrained(name="x")
    counted = {
        device: memory.make_meta_model(source, texts=(), device=device, config=wide) for device in ("cpu", "cuda")
    }
    model = onednn.use_onednn(AutoModelForCausalLM.from_config(wide))
    with memory.LiveTensorCounter(model.parameters()) as alive:
        with onednn.prepacked_weights(model):
            held = alive.now
        assert alive.now == counted["cuda"].prepacked == 0
    head = 4 * wide.vocab_size * wide.hidden_size
    assert held == counted["cpu"].prepacked == head


def test_of_quantized_models_only_the_head_is_prepacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignbench.models.loading._installed", lambda package: True)
    wide = LlamaConfig(**SHAPE.to_dict() | {"hidden_size": 256, "head_dim": 64, "intermediate_size": 1024})
    whole, packed = (
        memory.make_meta_model(
            Pretrained(name="x", quantization=bits, lora=Lora()), texts=(), device="cpu", config=wide, lora=Lora()
        )
        for bits in ("none", "nf4")
    )
    assert packed.prepacked == 4 * wide.vocab_size * 256
    assert whole.prepacked == packed.prepacked + 4 * 3 * 3 * 256 * 1024


def test_longer_answers_and_more_rows_take_more_memory() -> None:
    counted = memory.make_meta_model(Pretrained(name="x"), texts=(), device="cpu", config=SHAPE)
    small, long, wide = (
        memory.training_memory(counted, rows=rows, length=length, answer=8)
        for rows, length in ((2, 16), (2, 32), (4, 16))
    )
    assert small < long
    assert small < wide
    assert memory.inference_memory(counted, rows=4, length=16) < wide


def test_peak_memory_is_not_that_of_the_parent_process() -> None:
    held = bytearray(os.urandom(1 << 20)) * 2000
    code = "from alignbench.kernels.hardware import resident_memory; print(resident_memory(peak=True))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert hardware.resident_memory(peak=True) >= len(held)
    assert int(done.stdout) < len(held)
