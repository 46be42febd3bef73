"""Whoever leaves unlikely tokens out has to weigh the others, and is told so."""

import pytest

from alignbench.core.errors import UserError
from alignbench.generation.logits_filters import LogitsFilter
from alignbench.stages.evaluate import Evaluate
from alignbench.stages.online import RL

TOP = LogitsFilter(top_p=0.6)


def test_learning_from_fewer_tokens_needs_their_weights():
    with pytest.raises(UserError, match=r"rl\.logits_filter .* rl\.importance_cap=1\.0"):
        RL(logits_filter=TOP)
    RL(logits_filter=TOP, importance_cap=1.0)


def test_a_logits_filter_that_nothing_reads_is_refused():
    with pytest.raises(UserError, match=r"eval\.logits_filter .* eval\.decoding=sampled"):
        Evaluate(logits_filter=TOP)
    Evaluate(logits_filter=TOP, decoding="sampled")
