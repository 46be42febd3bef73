"""A logits filter in RL needs importance weights, and an error says so."""

import pytest

from alignbench.core.errors import UserError
from alignbench.generation.logits_filters import LogitsFilter
from alignbench.stages.evaluate import Evaluate
from alignbench.stages.online import RL

TOP = LogitsFilter(top_p=0.6)


def test_a_logits_filter_needs_importance_weights():
    with pytest.raises(UserError, match=r"rl\.logits_filter .* rl\.importance_cap=1\.0"):
        RL(logits_filter=TOP)
    RL(logits_filter=TOP, importance_cap=1.0)


def test_a_logits_filter_without_effect_is_an_error():
    with pytest.raises(UserError, match=r"eval\.logits_filter .* eval\.decoding=sampled"):
        Evaluate(logits_filter=TOP)
    Evaluate(logits_filter=TOP, decoding="sampled")
