"""One output folder with one MLflow store, shared by all tests of the analysis; a judge behind real sockets."""

from collections.abc import Iterator

import pytest
from judge_server import JudgeServer
from pytest_httpserver import HTTPServer
from synthetic import Studies


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Studies:
    return Studies(tmp_path_factory.mktemp("outputs"))


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with HTTPServer(threaded=True) as http:
        yield JudgeServer(http)
