"""The judge against `transformers serve` with a tiny random model; runs only if an environment variable is set."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from analysis.judge.answer_pairs import AnswerPair
from analysis.judge.cache import open_cache
from analysis.judge.panel import compose_judge
from analysis.judge.session import Session
from analysis.judge.verdicts import FAILURES, VERDICTS

SMOKE_VARIABLE = "ALIGNBENCH_SERVE_SMOKE"
pytestmark = pytest.mark.skipif(
    SMOKE_VARIABLE not in os.environ, reason=f"set {SMOKE_VARIABLE}=1 to try the judge on transformers serve"
)


def make_model(folder: Path) -> None:
    """A Llama of a few thousand weights, with a tokenizer of letters and a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate(["<s>", "</s>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>", chat_template=template
    ).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The address and the name of a served model."""
    folder = tmp_path / "model"
    make_model(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(Path(sys.executable).with_name("transformers")),
        "serve",
        str(folder),
        "--port",
        str(port),
        "--device",
        "cpu",
    ]
    with (tmp_path / "serve.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait(f"http://127.0.0.1:{port}/health", process, tmp_path / "serve.log")
            yield f"http://127.0.0.1:{port}/v1", str(folder)
        finally:
            process.terminate()


def wait(address: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.5)
    raise AssertionError(log.read_text())


def test_transformers_serve_accepts_the_requests(served: tuple[str, str], tmp_path: Path) -> None:
    url, model = served
    judge = compose_judge(
        "openai_compatible",
        [
            f"judge.model={model}",
            f"judge.base_url={url}",
            "judge.concurrency=1",
            "judge.max_completion_tokens=16",
            "judge.reasks=0",
        ],
    )
    pairs = [AnswerPair("grpo", "ppo", 1, "p", "What is 2 + 2?", "4", ("4", "5"))]
    with open_cache(tmp_path) as cache:
        found = Session(judge, pairs, cache, lambda text: None).run(lambda date: None)
    assert found.stopped is None
    assert found.calls.sum() == 2
    assert set(found.failures) <= {"", *FAILURES, *VERDICTS}  # a random model has no opinion
    assert found.models
