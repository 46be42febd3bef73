"""Small random models of several architectures, and batches for them, for the tests."""

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    Qwen2Config,
)

from alignbench.core.batches import Prompts, Sequences, sequences
from alignbench.data.prompt_stream import collate
from alignbench.models.text import Text
from alignbench.models.tiny import tiny_tokenizer

VOCABULARY = 16
PAD, EOS = 0, 1
SPECIAL = {"bos_token_id": None, "eos_token_id": EOS, "pad_token_id": PAD}
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    **SPECIAL,
}
CONFIGS = {
    "llama": lambda: LlamaConfig(**SIZES),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.3, **SPECIAL
    ),
    "gemma2": lambda: Gemma2Config(
        **SIZES,
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=4,
        final_logit_softcapping=2.0,
    ),
    "qwen2": lambda: Qwen2Config(**SIZES, num_key_value_heads=2),
    "mistral": lambda: MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=4),
}
# Prompts of several lengths; the end-of-sequence token (1) is inside some of them, and is the first token of one.
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [3], [4, 1, 4], [1, 2, 3, 4, 5]]
RESPONSES = [[3, 4, 1], [9, 8, 7, 6, 5, 4], [1], [2, 2, 15, 14]]


def make_model(name: str, **changes):
    """The model of this name, always with the same weights."""
    config = CONFIGS[name]()
    config.update(changes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config)


def make_scoring(name: str, **changes):
    """The model of this name with a head for one score, always with the same weights."""
    config = CONFIGS[name]()
    config.update({"num_labels": 1, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForSequenceClassification.from_config(config)


def make_text(pad_is_eos: bool = False) -> Text:
    """A byte tokenizer; the vocabulary of the models is its first sixteen tokens."""
    tokenizer = tiny_tokenizer(["1 + 2 = 3"], 258)
    if pad_is_eos:
        tokenizer.pad_token = tokenizer.eos_token
    return Text(tokenizer=tokenizer, chat=False, context=64)


def markov_model(transitions: Tensor):
    """A Llama whose next token depends on the last token alone, with probabilities [v, v]; rows are last tokens."""
    v = len(transitions)
    width = max(32, -(-v // 4) * 4)
    sizes = SIZES | {"vocab_size": v, "hidden_size": width, "head_dim": 8, "tie_word_embeddings": False}
    model = LlamaForCausalLM(LlamaConfig(**sizes))
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(v, width))
        model.lm_head.weight.zero_()
        # The last norm scales a one-hot vector of this width to the length sqrt(width).
        model.lm_head.weight[:, :v] = transitions.log().T / width**0.5
    return model


def batch(prompts=PROMPTS, responses=RESPONSES, pad: int = PAD) -> Sequences:
    """Prompts and responses as one padded batch."""
    return sequences(prompts, responses, pad)


def prompts_of(tokens=PROMPTS, ids=None) -> Prompts:
    """Token lists as a batch of prompts."""
    names = range(len(tokens)) if ids is None else ids
    return collate(tokens, [{"id": f"row-{name}", "prompt": "?"} for name in names], PAD)


@torch.no_grad()
def logprobs_by_hand(model, prompt: list[int], response: list[int], temperature: float = 1.0, never=(PAD,)) -> Tensor:
    """log P of each response token [t]: one forward pass of one sequence, without batch and padding."""
    logits = model.eval()(input_ids=torch.tensor([prompt + response])).logits[0].double() / temperature
    logits[:, list(never)] = -torch.inf
    logp = logits.log_softmax(-1)
    return torch.stack([logp[len(prompt) + k - 1, token] for k, token in enumerate(response)])
