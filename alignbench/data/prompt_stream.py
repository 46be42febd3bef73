"""An endless stream of prompts whose order depends only on the seed and on the position."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import torch

from alignbench.core.batches import Prompts, Row
from alignbench.core.errors import UserError
from alignbench.core.seeds import derive

Encode = Callable[[str], list[int]]


class PromptStream:
    """The prompts of a dataset, tokenized once and reshuffled in each epoch.

    The prompt at position p does not depend on the batch size: methods with 128 and 16 prompts per step see the same
    prompts in the same order, and a run resumed after p prompts continues with the next one.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        encode: Encode,
        prompts_per_step: int,
        seed: int,
        pad_id: int,
        max_prompt_tokens: int,
    ) -> None:
        """Raises UserError when there are no rows, or when a prompt is empty or longer than `max_prompt_tokens`."""
        self.rows = tuple(rows)
        self.prompts_per_step = prompts_per_step
        self.seed = seed
        self.pad_id = pad_id
        self._tokens = tokenize(self.rows, encode, max_prompt_tokens)

    def after(self, prompts_seen: int) -> Iterator[Prompts]:
        """Batches of `prompts_per_step` prompts, starting at position `prompts_seen`; endless."""
        while True:
            picked = [self._at(prompts_seen + i) for i in range(self.prompts_per_step)]
            yield collate([self._tokens[i] for i in picked], [self.rows[i] for i in picked], self.pad_id)
            prompts_seen += self.prompts_per_step

    def order_hash(self, prompts: int | None = None) -> str:
        """The sha256 of the ids of the first `prompts` prompts of the stream, by default of the first epoch."""
        count = len(self.rows) if prompts is None else prompts
        ids = [str(self.rows[self._at(position)]["id"]) for position in range(count)]
        return hashlib.sha256(json.dumps(ids).encode()).hexdigest()

    def _at(self, position: int) -> int:
        epoch, index = divmod(position, len(self.rows))
        return _permutation(len(self.rows), self.seed, epoch)[index]


def tokenize(rows: Sequence[Row], encode: Encode, max_prompt_tokens: int) -> list[list[int]]:
    """The tokens of each row's prompt. Raises UserError naming the first row whose prompt is empty or too long."""
    if not rows:
        raise UserError("no prompts: the split is empty")
    tokens = [encode(row["prompt"]) for row in rows]
    for row, found in zip(rows, tokens, strict=True):
        if not found:
            raise UserError(f"the prompt of row {row['id']} has no tokens: {row['prompt']!r}")
        if len(found) > max_prompt_tokens:
            raise UserError(
                f"the prompt of row {row['id']} has {len(found)} tokens, above max_prompt_tokens={max_prompt_tokens}. "
                "Prompts are never truncated: raise max_prompt_tokens (within the model's context), or drop such rows "
                "with rl.too_long=drop."
            )
    return tokens


def collate(tokens: Sequence[list[int]], rows: Sequence[Row], pad_id: int) -> Prompts:
    """One batch: tokens [b, p] left-padded with `pad_id`, lengths [b], rows."""
    width = max(len(prompt) for prompt in tokens)
    return Prompts(
        tokens=torch.tensor([[pad_id] * (width - len(prompt)) + prompt for prompt in tokens]),
        lengths=torch.tensor([len(prompt) for prompt in tokens]),
        rows=tuple(rows),
    )


def iterate_once(
    rows: Sequence[Row], encode: Encode, prompts_per_batch: int, pad_id: int, max_prompt_tokens: int
) -> Iterator[Prompts]:
    """Every prompt once, in the order of the rows, for evaluation; the last batch may be smaller."""
    tokens = tokenize(rows, encode, max_prompt_tokens)
    for start in range(0, len(rows), prompts_per_batch):
        batch = slice(start, start + prompts_per_batch)
        yield collate(tokens[batch], rows[batch], pad_id)


@lru_cache(maxsize=4)
def _permutation(count: int, seed: int, epoch: int) -> tuple[int, ...]:
    return tuple(torch.randperm(count, generator=derive(seed, "prompts", epoch)).tolist())
