"""Random checkpoints with the special tokens and chat templates of real model families, for the tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Family:
    """Architecture, special tokens and chat template of a model family."""

    kind: str
    """The architecture, as its config.json names it."""
    pad: str
    eos: str
    bos: str | None
    turn: str
    """A message in the chat template, with the placeholders {role} and {content}."""
    answer: str
    """The start of an answer in the chat template."""
    marks: tuple[str, ...] = ()
    """Special tokens of the chat template."""


CHAT_ML = {
    "pad": "<|endoftext|>",
    "eos": "<|im_end|>",
    "bos": None,
    "marks": ("<|im_start|>",),
    "turn": "<|im_start|>{role}\n{content}<|im_end|>\n",
    "answer": "<|im_start|>assistant\n",
}
FAMILIES = {
    "gemma": Family(
        kind="gemma",
        pad="<pad>",
        eos="<eos>",
        bos="<bos>",
        marks=("<start_of_turn>", "<end_of_turn>"),
        turn="<start_of_turn>{role}\n{content}<end_of_turn>\n",
        answer="<start_of_turn>model\n",
    ),
    "qwen2_5": Family(kind="qwen2", **CHAT_ML),
    "qwen3": Family(kind="qwen3", **CHAT_ML),
    "deepseek_math": Family(
        kind="llama", pad="<end>", eos="<end>", bos="<begin>", turn="{role}: {content}\n\n", answer="Assistant:"
    ),
    "phi3": Family(
        kind="phi3",
        pad="<|endoftext|>",
        eos="<|endoftext|>",
        bos="<s>",
        marks=("<|user|>", "<|assistant|>", "<|end|>"),
        turn="<|{role}|>\n{content}<|end|>\n",
        answer="<|assistant|>\n",
    ),
}


def make_checkpoint(name: str, folder: Path, texts: Sequence[str]) -> Path:
    """Write a random checkpoint of this family to `folder`; its tokenizer is trained on the texts."""
    family = FAMILIES[name]
    tokenizer = make_tokenizer(family, texts)
    tokenizer.save_pretrained(folder)
    config = AutoConfig.for_model(
        family.kind,
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=4096,
        original_max_position_embeddings=4096,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def make_tokenizer(family: Family, texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """Byte pairs of the texts, the family's special tokens and its chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = [name for name in dict.fromkeys((family.pad, family.eos, family.bos, *family.marks)) if name]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=512,
            special_tokens=special,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=family.pad,
        eos_token=family.eos,
        bos_token=family.bos,
        additional_special_tokens=list(family.marks),
    )
    begin, message = "{{ bos_token }}" if family.bos else "", jinja(family.turn)
    fast.chat_template = (
        f"{begin}{{% for message in messages %}}{{{{ {message} }}}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{{{{ {family.answer!r} }}}}{{% endif %}}"
    )
    return fast


def jinja(turn: str) -> str:
    """A message with its two parts as an expression of the template language."""
    before, _, rest = turn.partition("{role}")
    between, _, after = rest.partition("{content}")
    return f"{before!r} + message['role'] + {between!r} + message['content'] + {after!r}"
