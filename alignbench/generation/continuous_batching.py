"""Who is in the batch: rows that have ended leave it, and prompts that waited are let in."""

import torch
from torch import Tensor
from torch.nn import functional

from alignbench.core.batches import Prompts

COMPACTION_THRESHOLD = 7 / 8
"""Rows that have ended leave the batch once no larger share of it is still writing: to leave is to copy what stays."""


class PromptQueue:
    """The prompts of a step in their order, handed out in whole groups."""

    def __init__(self, prompts: Prompts, group_size: int, at_once: int | None) -> None:
        """At most `at_once` answers are written at a time, or those of one prompt if these are more; None: all."""
        everything = len(prompts) * group_size
        self.prompts, self.group_size = prompts, group_size
        self.at_once = everything if at_once is None else max(at_once, group_size)
        self.position = 0

    def __bool__(self) -> bool:
        return self.position < len(self.prompts)

    def capacity(self, writing: int) -> int:
        """How many of them have room beside so many answers."""
        return min((self.at_once - writing) // self.group_size, len(self.prompts) - self.position)

    def pop(self, writing: int) -> tuple[Prompts, Tensor]:
        """Those that have room beside so many answers, and which of all answers are theirs."""
        first, self.position = self.position, self.position + self.capacity(writing)
        lengths = self.prompts.lengths[first : self.position]
        prompts = Prompts(
            tokens=self.prompts.tokens[first : self.position, -int(lengths.max()) :],
            lengths=lengths,
            rows=self.prompts.rows[first : self.position],
        )
        return prompts, torch.arange(first * self.group_size, self.position * self.group_size)


class ActiveBatch:
    """Which of all answers are in the batch, how many tokens each of them has, and whether it goes on, [m]."""

    def __init__(self, rows: Tensor, limit: int) -> None:
        """They begin with nothing, and end with that many tokens."""
        self.rows, self.generated, self.unfinished = (
            rows,
            torch.zeros_like(rows),
            torch.ones_like(rows, dtype=torch.bool),
        )
        self.limit, self.unfinished_count, self.longest = limit, len(rows), 0

    def __len__(self) -> int:
        return len(self.rows)

    def advance(self, is_end: Tensor) -> None:
        """Each has a token more, which may be its last."""
        self.generated += 1
        self.unfinished &= ~is_end & (self.generated < self.limit)
        self.unfinished_count, self.longest = torch.stack([self.unfinished.sum(), self.generated.max()]).tolist()

    def should_compact(self) -> bool:
        """Whether enough have ended; a row that has ended goes on for nothing until then, but never past the limit."""
        return self.unfinished_count <= COMPACTION_THRESHOLD * len(self) or self.longest == self.limit

    def compact(self, refill: bool) -> Tensor:
        """Only those that go on are left: these, of those there were.

        In their order, or, where others are to come, the last of them in the places of those that have ended: then few
        have to move.
        """
        going = self.unfinished.nonzero()[:, 0]
        if refill:
            stay = self.unfinished[: self.unfinished_count]
            going = torch.arange(self.unfinished_count, device=going.device).masked_scatter(
                ~stay, going[going >= self.unfinished_count]
            )
        self.rows, self.generated, self.unfinished = self.rows[going], self.generated[going], self.unfinished[going]
        return going

    def add(self, rows: Tensor) -> None:
        """These begin, after those that are there."""
        self.rows = torch.cat([self.rows, rows.to(self.rows.device)])
        self.generated = functional.pad(self.generated, (0, len(rows)))
        self.unfinished = functional.pad(self.unfinished, (0, len(rows)), value=True)
