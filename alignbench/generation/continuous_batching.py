"""Who is in the batch: rows that have ended leave it, and prompts that waited are let in."""

import torch
from torch import Tensor
from torch.nn import functional

from alignbench.core.batches import Prompts

FULL = 7 / 8
"""Rows that have ended leave the batch once no larger share of it is still writing: to leave is to copy what stays."""


class Waiting:
    """The prompts of a step in their order, handed out in whole groups."""

    def __init__(self, prompts: Prompts, group_size: int, at_once: int | None) -> None:
        """At most `at_once` answers are written at a time, or those of one prompt if these are more; None: all."""
        everything = len(prompts) * group_size
        self.prompts, self.group_size = prompts, group_size
        self.at_once = everything if at_once is None else max(at_once, group_size)
        self.begun = 0

    def __bool__(self) -> bool:
        return self.begun < len(self.prompts)

    def fit(self, writing: int) -> int:
        """How many of them have room beside so many answers."""
        return min((self.at_once - writing) // self.group_size, len(self.prompts) - self.begun)

    def take(self, writing: int) -> tuple[Prompts, Tensor]:
        """Those that have room beside so many answers, and which of all answers are theirs."""
        first, self.begun = self.begun, self.begun + self.fit(writing)
        lengths = self.prompts.lengths[first : self.begun]
        prompts = Prompts(
            tokens=self.prompts.tokens[first : self.begun, -int(lengths.max()) :],
            lengths=lengths,
            rows=self.prompts.rows[first : self.begun],
        )
        return prompts, torch.arange(first * self.group_size, self.begun * self.group_size)


class Batch:
    """Which of all answers are in the batch, how many tokens each of them has, and whether it goes on, [m]."""

    def __init__(self, rows: Tensor, limit: int) -> None:
        """They begin with nothing, and end with that many tokens."""
        self.rows, self.depth, self.goes_on = rows, torch.zeros_like(rows), torch.ones_like(rows, dtype=torch.bool)
        self.limit, self.left, self.longest = limit, len(rows), 0

    def __len__(self) -> int:
        return len(self.rows)

    def wrote(self, is_end: Tensor) -> None:
        """Each has a token more, which may be its last."""
        self.depth += 1
        self.goes_on &= ~is_end & (self.depth < self.limit)
        self.left, self.longest = torch.stack([self.goes_on.sum(), self.depth.max()]).tolist()

    def is_to_close_up(self) -> bool:
        """Whether enough have ended; a row that has ended goes on for nothing until then, but never past the limit."""
        return self.left <= FULL * len(self) or self.longest == self.limit

    def close_up(self, to_be_filled: bool) -> Tensor:
        """Only those that go on are left: these, of those there were.

        In their order, or, where others are to come, the last of them in the places of those that have ended: then few
        have to move.
        """
        going = self.goes_on.nonzero()[:, 0]
        if to_be_filled:
            stay = self.goes_on[: self.left]
            going = torch.arange(self.left, device=going.device).masked_scatter(~stay, going[going >= self.left])
        self.rows, self.depth, self.goes_on = self.rows[going], self.depth[going], self.goes_on[going]
        return going

    def admit(self, rows: Tensor) -> None:
        """These begin, after those that are there."""
        self.rows = torch.cat([self.rows, rows.to(self.rows.device)])
        self.depth = functional.pad(self.depth, (0, len(rows)))
        self.goes_on = functional.pad(self.goes_on, (0, len(rows)), value=True)
