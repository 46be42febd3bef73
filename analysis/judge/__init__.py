"""The pairwise judge: a language model says which of two answers is better, and what that is worth."""
