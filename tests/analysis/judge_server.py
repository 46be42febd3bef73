"""A simulated judge behind a real HTTP server, with configurable bias and failures."""

import json
import re
import threading
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import numpy as np
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from validation.simulations.simulated_judge import JudgeModel

PART = r"<<<(\w+) {name}>>>\n(.*?)\n<<<\1 end of {name}>>>"
QUALITY = re.compile(r"quality=(-?[\d.]+)")
Fault = Callable[[], Response]


def part(text: str, name: str) -> str:
    """The text between the delimiters of one part of the prompt."""
    found = re.search(PART.format(name=name), text, re.DOTALL)
    assert found is not None, text
    return found[2]


def completion(content: str | None, finish: str = "stop", refusal: str | None = None, usage: bool = True) -> Response:
    body: dict[str, Any] = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "simulated-1",
        "system_fingerprint": "fp",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": content, "refusal": refusal},
            }
        ],
    }
    if usage:
        body["usage"] = {
            "prompt_tokens": 1000,
            "completion_tokens": 100,
            "total_tokens": 1100,
            "prompt_tokens_details": {"cached_tokens": 400},
        }
    return Response(json.dumps(body), content_type="application/json")


def verdict(word: str) -> Response:
    return completion(json.dumps({"reasoning": "because", "verdict": word}))


def error(status: int, code: str, message: str = "no", headers: dict[str, str] | None = None) -> Response:
    body = json.dumps({"error": {"code": code, "type": code, "message": message}})
    return Response(body, status=status, headers=headers, content_type="application/json")


class JudgeServer:
    """Prefers the answer with the higher `quality=`, with the biases of a JudgeModel; `faults` are served first."""

    def __init__(self, server: HTTPServer, judge_model: JudgeModel | None = None) -> None:
        self.judge_model = judge_model or JudgeModel(noise=0.0)
        self.calls: list[dict[str, Any]] = []
        self.faults: list[Fault | None] = []
        self.headers: list[dict[str, str]] = []
        self.model: Response | None = None
        self.before: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        server.expect_request("/v1/chat/completions", method="POST").respond_with_handler(self._answer)
        server.expect_request(re.compile("/v1/models/.*")).respond_with_handler(self._model)
        self.url = server.url_for("/v1")

    def _model(self, request: Request) -> Response:
        return self.model or error(404, "not_found")

    def _answer(self, request: Request) -> Response:
        self.before()
        with self._lock:
            body = request.get_json()
            self.calls.append(body)
            self.headers.append(dict(request.headers))
            fault = self.faults.pop(0) if self.faults else None
        return fault() if fault else verdict(self.choose(body["messages"][-1]["content"]))

    def choose(self, text: str) -> str:
        a, b = part(text, "answer A"), part(text, "answer B")
        gap = self._quality(a) - self._quality(b)
        seed = int.from_bytes(sha256(text.encode()).digest()[:8], "big")
        z = np.random.default_rng(seed).standard_normal(1)
        longer = np.array([(len(a) - len(b)) / 100])
        return {1: "A", 0: "tie", -1: "B"}[int(self.judge_model.verdict(np.array([gap]), longer, z)[0])]

    @staticmethod
    def _quality(text: str) -> float:
        found = QUALITY.search(text)
        return float(found[1]) if found else 0.0
