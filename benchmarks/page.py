"""Text of benchmark pages: Markdown tables, medians with their range, wrapped paragraphs."""

from collections.abc import Iterable, Sequence
from statistics import median
from textwrap import fill


def print_line(text: str) -> None:
    """Print a line and flush it, so that a long benchmark shows its progress."""
    print(text, flush=True)


def format_spread(numbers: Iterable[float], form: str = "{:.2f}") -> str:
    """The median, with minimum and maximum in brackets."""
    values = sorted(numbers)
    low, middle, high = (form.format(x) for x in (values[0], median(values), values[-1]))
    return f"{middle} ({low} to {high})"


def format_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, first column left-aligned, the others right-aligned."""
    marks = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, marks, *rows])


def wrap_paragraphs(text: str) -> str:
    """Wrap each paragraph at 120 characters."""
    return "\n\n".join(fill(part, 120, break_on_hyphens=False) for part in text.strip().split("\n\n"))
