"""Continuous batching: finished rows leave the batch during decoding, and waiting prompts join it."""

import torch
from torch import Tensor
from torch.nn import functional

from alignbench.core.batches import Prompts

COMPACTION_THRESHOLD = 7 / 8
"""Finished rows are removed once at most this share of the batch is unfinished, since removal copies the rest."""


class PromptQueue:
    """The prompts of a step in order; `pop` returns whole groups."""

    def __init__(self, prompts: Prompts, group_size: int, max_rows: int | None) -> None:
        """At most `max_rows` answers are generated concurrently, but at least one group; None is all."""
        everything = len(prompts) * group_size
        self.prompts, self.group_size = prompts, group_size
        self.max_rows = everything if max_rows is None else max(max_rows, group_size)
        self.position = 0

    def __bool__(self) -> bool:
        return self.position < len(self.prompts)

    def capacity(self, active: int) -> int:
        """Number of waiting prompts that fit beside `active` rows."""
        return min((self.max_rows - active) // self.group_size, len(self.prompts) - self.position)

    def pop(self, active: int) -> tuple[Prompts, Tensor]:
        """The prompts that fit beside `active` rows, and the numbers of their answers among all answers."""
        first, self.position = self.position, self.position + self.capacity(active)
        lengths = self.prompts.lengths[first : self.position]
        prompts = Prompts(
            tokens=self.prompts.tokens[first : self.position, -int(lengths.max()) :],
            lengths=lengths,
            rows=self.prompts.rows[first : self.position],
        )
        return prompts, torch.arange(first * self.group_size, self.position * self.group_size)


class ActiveBatch:
    """The rows in the batch, [m]: their answer numbers, their generated tokens, and whether they are unfinished."""

    def __init__(self, rows: Tensor, limit: int) -> None:
        """All rows start with 0 tokens and end with at most `limit`."""
        self.rows, self.generated = rows, torch.zeros_like(rows)
        self.unfinished = torch.ones_like(rows, dtype=torch.bool)
        self.limit, self.unfinished_count, self.longest = limit, len(rows), 0

    def __len__(self) -> int:
        return len(self.rows)

    def advance(self, is_end: Tensor) -> None:
        """Count one generated token in each row; `is_end` [m] is True for stop tokens."""
        self.generated += 1
        self.unfinished &= ~is_end & (self.generated < self.limit)
        self.unfinished_count, self.longest = torch.stack([self.unfinished.sum(), self.generated.max()]).tolist()

    def should_compact(self) -> bool:
        """Whether enough rows have finished; until then they are decoded further, but never beyond the limit."""
        return self.unfinished_count <= COMPACTION_THRESHOLD * len(self) or self.longest == self.limit

    def compact(self, refill: bool) -> Tensor:
        """Keep only unfinished rows, and return their indices in the batch before.

        The order is kept, unless prompts will join (`refill`): then the last rows move to the places of finished ones,
        so that few rows move.
        """
        kept = self.unfinished.nonzero()[:, 0]
        if refill:
            stays = self.unfinished[: self.unfinished_count]
            order = torch.arange(self.unfinished_count, device=kept.device)
            kept = order.masked_scatter(~stays, kept[kept >= self.unfinished_count])
        self.rows, self.generated, self.unfinished = self.rows[kept], self.generated[kept], self.unfinished[kept]
        return kept

    def add(self, rows: Tensor) -> None:
        """Append rows without generated tokens."""
        self.rows = torch.cat([self.rows, rows.to(self.rows.device)])
        self.generated = functional.pad(self.generated, (0, len(rows)))
        self.unfinished = functional.pad(self.unfinished, (0, len(rows)), value=True)
