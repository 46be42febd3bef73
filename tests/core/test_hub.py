"""Hub access: an error within seconds if the hub does not answer, unless a copy is cached."""

import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

ASK = """
import sys
from alignbench.core.errors import UserError
from alignbench.core.hub import require_hub
try:
    require_hub(sys.argv[1], sys.argv[2], "Set data.path.")
    from huggingface_hub import constants
    print("granted", "offline" if constants.HF_HUB_OFFLINE else "online")
except UserError as error:
    print("refused", error)
"""


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does: by the name that is asked for."""

    def do_GET(self):
        code, reason = {
            "gated": (403, "GatedRepo"),
            "missing": (404, "RepoNotFound"),
            "mirror": (404, ""),
            "slow": (200, ""),
        }.get(self.path.split("/")[4], (200, ""))
        if "slow" in self.path:
            time.sleep(6)
        self.send_response(code)
        if reason:
            self.send_header("X-Error-Code", reason)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Silent."""


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def ask(home, endpoint, name, kind="dataset", **variables):
    """(answer, seconds) of a fresh process, because the hub's client reads its settings when it is imported."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    env = kept | {"HF_HOME": str(home), "HF_ENDPOINT": endpoint} | variables
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", ASK, name, kind], env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip(), time.monotonic() - start


def test_access_is_queried(hub, tmp_path):
    assert ask(tmp_path, hub, "org/open")[0] == "granted online"
    assert ask(tmp_path, hub, "org/mirror")[0] == "granted online"
    assert "org/gated' from the hub: it is gated; accept its terms" in ask(tmp_path, hub, "org/gated", "model")[0]
    assert "there is no such name" in ask(tmp_path, hub, "org/missing")[0]
    assert "not a hub name" in ask(tmp_path, hub, "./some/path/there")[0]


def test_an_unreachable_or_silent_hub_is_an_error_within_five_seconds(hub, tmp_path):
    for endpoint, name in (
        ("http://127.0.0.1:9", "org/open"),
        (hub, "org/slow"),
        ("http://no.such.host.test", "org/a"),
    ):
        answer, seconds = ask(tmp_path, endpoint, name)
        assert answer.startswith(f"refused cannot load the dataset {name!r} from the hub: {endpoint} ")
        assert answer.endswith("Set data.path.")
        assert seconds < 5


def test_offline_mode_is_an_error_at_once(hub, tmp_path):
    answer, seconds = ask(tmp_path, hub, "org/open", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set and it is not in the cache" in answer
    assert seconds < 3


def test_a_cached_copy_is_enough_when_the_hub_does_not_answer(tmp_path):
    (tmp_path / "datasets" / "org___my_data" / "main" / "0.0.0" / "abc").mkdir(parents=True)
    snapshot = tmp_path / "hub" / "models--org--net" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (tmp_path / "hub" / "models--org--net" / "refs").mkdir()
    (tmp_path / "hub" / "models--org--net" / "refs" / "main").write_text("abc")
    silent = "http://127.0.0.1:9"
    assert ask(tmp_path, silent, "org/MyData")[0] == "granted offline"
    assert ask(tmp_path, silent, "org/net", "model")[0] == "granted offline"
    assert ask(tmp_path, silent, "org/other", "model")[0].startswith("refused")
    assert ask(tmp_path, silent, "org/net", "model", HF_HUB_OFFLINE="1")[0] == "granted offline"
