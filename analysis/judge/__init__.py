"""The LLM judge: pairwise comparison of answers by a language model, with statistics of its verdicts."""
