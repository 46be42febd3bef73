"""One output folder with one MLflow store, shared by all tests of the analysis."""

import pytest
from synthetic import Studies


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Studies:
    return Studies(tmp_path_factory.mktemp("outputs"))
