"""Under test, the shapes and types that core, equations, algorithms and engine promise are checked at every call."""

import pytest
from jaxtyping import install_import_hook

# Not by jaxtyping's pytest option: it cannot split a list of packages when the checker has parentheses.
install_import_hook(
    ["alignbench.core", "alignbench.equations", "alignbench.algorithms", "alignbench.engine"],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

from small_models import CONFIGS, make_model, make_text  # noqa: E402  after the hook, which must see the imports

from alignbench.models.policy import CausalPolicy  # noqa: E402


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
