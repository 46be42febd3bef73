"""Logits filters equal those of transformers, and log-probabilities are those of the filtered distribution."""

import pytest
import torch
from small_models import make_text, markov_model, prompts_of
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from alignbench.generation.logits_filters import LogitsFilter
from alignbench.generation.sampler import Sampler
from alignbench.models.policy import CausalPolicy

LOGP = (3 * torch.randn(50, 40, generator=torch.Generator().manual_seed(0))).log_softmax(-1)


@pytest.mark.parametrize("rules", [{"top_k": 5}, {"top_p": 0.9}, {"top_p": 0.1}, {"min_p": 0.05},
                                   {"top_k": 9, "top_p": 0.8, "min_p": 0.1}])  # fmt: skip
def test_tokens_and_probabilities_equal_those_of_transformers(rules):
    theirs = LOGP.clone()
    for name, warper in (("top_k", TopKLogitsWarper), ("top_p", TopPLogitsWarper), ("min_p", MinPLogitsWarper)):
        if name in rules:
            theirs = warper(rules[name])(None, theirs)
    found = LogitsFilter(**rules)(LOGP).exp()
    torch.testing.assert_close(found, theirs.softmax(-1), atol=1e-6, rtol=1e-5)
    assert (found == 0).any(1).all()


def test_an_empty_filter_keeps_all_tokens():
    assert LogitsFilter()(LOGP) is LOGP


@pytest.mark.parametrize(("rules", "left"), [
    ({"top_k": 3}, [2, 4, 5]), ({"top_p": 0.75}, [2, 5]), ({"min_p": 0.5}, [2, 5])])  # fmt: skip
def test_log_probabilities_are_those_of_the_filtered_distribution(rules, left):
    chances = torch.tensor([0.0, 0.05, 0.3, 0.02, 0.13, 0.5])
    policy = CausalPolicy(markov_model(chances.clamp(min=1e-30).expand(6, 6)), make_text(pad_is_eos=True))
    sampler = Sampler(policy=policy, max_new_tokens=1, temperature=1.0, logits_filter=LogitsFilter(**rules))
    rollouts = sampler(prompts_of([[3, 2]]), 500, 0)
    tokens = rollouts.responses[:, 0]
    assert sorted(tokens.unique().tolist()) == left
    mu = chances[left] / chances[left].sum()
    expected = mu[torch.searchsorted(torch.tensor(left), tokens)].log()
    torch.testing.assert_close(rollouts.logprobs[:, 0], expected, atol=1e-5, rtol=1e-5)
