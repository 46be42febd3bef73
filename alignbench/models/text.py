"""Text to tokens and back: chat template, beginning, end and padding, decided once."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from alignbench.core.errors import UserError


@dataclass(frozen=True)
class Text:
    """A tokenizer with the choices that a run must not make twice."""

    tokenizer: Any
    chat: bool
    """Whether prompts and completions go through the tokenizer's chat template."""
    context: int
    """The longest sequence the model can read, in tokens."""

    @cached_property
    def eos(self) -> int:
        """The token that ends a completion."""
        if self.tokenizer.eos_token_id is None:
            raise UserError("the tokenizer has no end-of-sequence token, so no answer could end: set its eos_token")
        return int(self.tokenizer.eos_token_id)

    @cached_property
    def stops(self) -> tuple[int, ...]:
        """Every token that ends an answer: the end of the sequence, and the end of a turn in chat models."""
        names = ("<end_of_turn>", "<|im_end|>", "<|eot_id|>", "<|end|>") if self.chat else ()
        vocabulary = self.tokenizer.get_vocab()
        return tuple(dict.fromkeys([self.eos, *(vocabulary[name] for name in names if name in vocabulary)]))

    @cached_property
    def pad(self) -> int:
        """The token that fills rows up; what it is never matters, since it is masked everywhere."""
        pad = self.tokenizer.pad_token_id
        return self.eos if pad is None else int(pad)

    @cached_property
    def suppressed(self) -> tuple[int, ...]:
        """Tokens that are never sampled: padding, unless it also ends answers."""
        return () if self.pad in self.stops else (self.pad,)

    def encode_prompt(self, text: str) -> list[int]:
        """The tokens of a prompt, up to where the answer starts."""
        if self.chat:
            return self._template([{"role": "user", "content": text}], add_generation_prompt=True)
        return list(self.tokenizer(text)["input_ids"])

    def encode_completion(self, text: str) -> list[int]:
        """The tokens of an answer, with the one that ends it."""
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        return [*ids, self.stops[-1]]

    def decode(self, ids: list[int]) -> str:
        """Tokens as text, without special ones."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _template(self, messages: list[dict[str, str]], **options: Any) -> list[int]:
        ids = self.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **options)
        return list(ids)
