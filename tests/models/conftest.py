"""What the tests of models share."""

import pytest
from small_models import CONFIGS, make_model, make_text

from alignbench.models.policy import CausalPolicy


@pytest.fixture(scope="session")
def text():
    return make_text()


@pytest.fixture(scope="session", params=list(CONFIGS))
def policy(request, text):
    """A policy of each architecture; no test may change it."""
    return CausalPolicy(make_model(request.param), text)


@pytest.fixture(scope="session")
def llama(text):
    """One policy, where the architecture does not matter; no test may change it."""
    return CausalPolicy(make_model("llama"), text)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, text):
    """A folder as written by save_pretrained."""
    folder = tmp_path_factory.mktemp("llama")
    make_model("llama").save_pretrained(folder)
    text.tokenizer.save_pretrained(folder)
    return folder
