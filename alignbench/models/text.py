"""Text to tokens and back: chat template, end-of-sequence and padding tokens of one tokenizer."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from alignbench.core.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Text:
    """A tokenizer with its chat template, stop tokens and padding, the same for all stages of a run."""

    tokenizer: "PreTrainedTokenizerBase"
    chat: bool
    """Whether prompts and completions use the tokenizer's chat template."""
    context: int
    """The longest sequence the model can read, in tokens."""

    @cached_property
    def eos(self) -> int:
        """The token that ends a completion."""
        if self.tokenizer.eos_token_id is None:
            raise UserError("the tokenizer has no end-of-sequence token, which ends an answer: set its eos_token")
        return int(self.tokenizer.eos_token_id)

    @cached_property
    def stops(self) -> tuple[int, ...]:
        """Every token that ends an answer: end of sequence, and end of turn in chat models."""
        names = ("<end_of_turn>", "<|im_end|>", "<|eot_id|>", "<|end|>") if self.chat else ()
        vocabulary = self.tokenizer.get_vocab()
        return tuple(dict.fromkeys([self.eos, *(vocabulary[name] for name in names if name in vocabulary)]))

    @cached_property
    def pad(self) -> int:
        """The padding token; it is masked everywhere, so its value does not matter."""
        pad = self.tokenizer.pad_token_id
        return self.eos if pad is None else int(pad)

    @cached_property
    def suppressed(self) -> tuple[int, ...]:
        """Tokens that are never sampled: the padding token, unless it also ends answers."""
        return () if self.pad in self.stops else (self.pad,)

    def encode_prompt(self, text: str) -> list[int]:
        """Tokens of a prompt, up to the first token of the answer."""
        if self.chat:
            messages = [{"role": "user", "content": text}]
            ids = self.tokenizer.apply_chat_template(
                messages, tokenize=True, return_dict=False, add_generation_prompt=True
            )
            return list(ids)
        return list(self.tokenizer(text)["input_ids"])

    def encode_completion(self, text: str) -> list[int]:
        """Tokens of an answer, including the stop token."""
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return [*ids, self.stops[-1]]

    def decode(self, ids: list[int]) -> str:
        """Text of the tokens, without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))
