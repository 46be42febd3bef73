"""The built-in model and tokenizer, made at run time: no download, and small enough to train on two CPU cores."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from alignbench.core.seeds import address

if TYPE_CHECKING:
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        LlamaForSequenceClassification,
        PreTrainedTokenizerFast,
    )


def tiny_tokenizer(texts: Iterable[str], vocabulary: int) -> "PreTrainedTokenizerFast":
    """A byte-level BPE tokenizer trained on the texts; digits are separate tokens, `<pad>` is 0 and `<eos>` is 1."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=["<pad>", "<eos>"],
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


def tiny_config(
    vocabulary: int, *, hidden: int, layers: int, heads: int, intermediate: int, context: int
) -> "LlamaConfig":
    """The configuration of a Llama of these sizes with tied embeddings."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )


def tiny_model(config: "LlamaConfig", seed: int) -> "LlamaForCausalLM":
    """A Llama of this configuration; its weights depend on the seed alone."""
    from transformers import LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(address(seed, "tiny model"))
        return LlamaForCausalLM(config)


def with_score_head(model: "LlamaForCausalLM") -> "LlamaForSequenceClassification":
    """The same weights with a random head for one score in place of the LM head."""
    from transformers import LlamaForSequenceClassification

    model.config.num_labels = 1
    with torch.random.fork_rng(devices=[]):
        headed = LlamaForSequenceClassification(model.config)
    headed.model.load_state_dict(model.model.state_dict())
    return headed
