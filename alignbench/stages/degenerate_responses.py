"""Answers that say nothing: empty ones, and ones that say the same again and again."""

NGRAM = 4
"""Words in a row that count as one thing said."""
REPEATED = 0.5
"""The share of things said before from which an answer counts as repeated."""


def is_empty(answer: str) -> bool:
    """Whether nothing is written that can be read."""
    return not answer.strip()


def is_repeated(answer: str) -> bool:
    """Whether half or more of its runs of four words stand earlier in the same answer; case does not matter."""
    words = answer.casefold().split()
    said = [tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]
    return bool(said) and 1 - len(set(said)) / len(said) >= REPEATED
