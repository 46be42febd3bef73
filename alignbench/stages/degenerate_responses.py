"""Degenerate responses: empty ones and repetitive ones."""

NGRAM = 4
"""Length in words of the n-grams that are compared."""
REPEATED = 0.5
"""Minimum share of repeated n-grams for a response to count as repetitive."""


def is_empty(answer: str) -> bool:
    """Whether the answer is empty or only white space."""
    return not answer.strip()


def is_repeated(answer: str) -> bool:
    """Whether at least half of the answer's 4-grams of words occur earlier in it, ignoring case."""
    words = answer.casefold().split()
    ngrams = [tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]
    return bool(ngrams) and 1 - len(set(ngrams)) / len(ngrams) >= REPEATED
