"""Invalid input of every kind: one message with the cause, the place and the remedy, and no files left behind."""

import gzip
import json
import re
import resource
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import torch
from small_runs import SMALL, config, run_small, status, type_in

from alignbench.core.errors import InvariantBroken, UserError
from alignbench.runs.pipeline import run

QUESTIONS = [{"question": f"What is {n} and {n}?", "answer": f"It is {2 * n}.\n#### {2 * n}"} for n in range(40)]
REWARDS = """
def raises(prompts, completions):
    raise RuntimeError("no luck today")

def short(prompts, completions):
    return [1.0]

def nan(prompts, completions):
    return [float("nan")] * len(prompts)

def text(prompts, completions):
    return ["good"] * len(prompts)

def alone(prompts, completions):
    return 1.0

def needs_level(prompts, completions, level):
    return [1.0] * len(prompts)

def takes_nothing():
    return []

def digits(prompts, completions):
    return [float(sum(c.isdigit() for c in text)) for text in completions]

constant = 3
"""


def write_rows(path: Path, rows: list) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of valid and invalid files used by the cases below."""
    folder = tmp_path_factory.mktemp("files")
    good = "".join(json.dumps(row) + "\n" for row in QUESTIONS)
    (folder / "rewards.py").write_text(REWARDS)
    (folder / "broken.py").write_text("def half(:\n")
    (folder / "good.jsonl").write_text(good)
    (folder / "malformed.jsonl").write_text(good + '{"question": "And 1"\n')
    (folder / "list.jsonl").write_text(good + "[1, 2]\n")
    (folder / "empty.jsonl").write_text("\n")
    (folder / "lines.json").write_text(good)
    (folder / "latin.jsonl").write_bytes(good.encode() + '{"question": "Häh?"}\n'.encode("latin-1"))
    (folder / "good.csv").write_text("question,answer\n")
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress(good.encode())[:200])
    (folder / "not.parquet").write_text("no")
    write_rows(folder / "column.jsonl", [*QUESTIONS, {"question": "And?", "reply": "#### 4"}])
    write_rows(folder / "blank.jsonl", [*QUESTIONS, {"question": " ", "answer": "#### 4"}])
    write_rows(folder / "unmarked.jsonl", [*QUESTIONS, {"question": "And 3?", "answer": "It is 6"}])
    write_rows(folder / "wordy.jsonl", [*QUESTIONS, {"question": "And 3?", "answer": "#### six"}])
    write_rows(folder / "long.jsonl", [*QUESTIONS, {"question": "How " * 1500 + "many?", "answer": "#### 4"}])
    write_rows(folder / "wordy_answer.jsonl", [{**q, "answer": "so " * 3000 + q["answer"]} for q in QUESTIONS])
    write_rows(folder / "few.jsonl", QUESTIONS[:5])
    write_rows(folder / "same.jsonl", [{**QUESTIONS[30], "question": " what is 30 AND 30?"}])
    boxes = [{"problem": q["question"], "solution": f"It is $\\boxed{{{n}}}$."} for n, q in enumerate(QUESTIONS)]
    write_rows(folder / "unboxed.jsonl", [*boxes, {"problem": "And?", "solution": "It is 4."}])
    write_rows(folder / "unsolved.jsonl", [*boxes, {"problem": "And?"}])
    bodies = [{"Body": q["question"], "Question": "Well?", "Equation": "( 1.0 + 3.0 )", "Answer": 4} for q in QUESTIONS]
    write_rows(folder / "no_number.jsonl", [*bodies, {"Body": "And", "Question": "And?", "Answer": "four"}])
    write_rows(folder / "no_sum.jsonl", [*bodies, {**bodies[0], "Equation": "exit()"}])
    (folder / "nothing_here").mkdir()
    (folder / "mixed").mkdir()
    for name in ("train", "test", "other"):
        (folder / "mixed" / f"{name}.jsonl").write_text(good)
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text('{"model_type": "llama"')
    return folder


GSM = ("data=gsm8k", "data.validation_rows=4", "data.train_rows=20", "data.test_rows=4")
"""A small run on a file."""
MATHS, SVAMP, QA, OWN = ((f"data={name}", *GSM[1:2]) for name in ("math", "svamp", "qa_json", "custom"))

BEFORE_ANYTHING = [
    # command-line arguments                                              words of the message
    (("+rl.step=1",), ("rl.step", "did you mean rl.steps")),
    (("+colour=red",), ("colour", "known keys")),
    (("+algo.kl.beta=1",), ("algo.kl.beta", "coef")),
    (("seed=abc",), ("seed='abc'", "integer")),
    (("seed=-1",), ("seed=-1", "greater than or equal to 0")),
    (("rl.optimizer.learning_rate=-1e-4",), ("rl.optimizer.learning_rate=-0.0001", "greater than 0")),
    (("algo.clip_low=0",), ("algo.clip_low=0", "greater than 0")),
    (("algo.group_size=1",), ("in algo", "group_size=1", "use 2 or more")),
    (("algo=rloo", "algo.group_size=1"), ("in algo", "group_size=1", "use 2 or more")),
    (("algo.reduction=fixed_length",), ("in algo", "fixed_length=<")),
    (("algo.kl.estimator=k1", "algo.kl.exact_gradient=false"), ("in algo.kl", "k1", "placement=reward")),
    (("rl.rollouts_per_step=20",), ("rl.rollouts_per_step=20", "algo.group_size=8", "multiple")),
    (("rl.minibatches=3",), ("rl.minibatches=3", "divisor")),
    (("algo=ppo", "rl.minibatches=32"), ("rl.minibatches=32", "16 groups")),
    (("algo=ppo", "algo.critic.start=reward_model"), ("in algo.critic", "algo.critic.trunk=separate")),
    (
        ("algo=ppo", "algo.critic.trunk=separate", "algo.critic.start=reward_model", "algo.critic.hidden=0"),
        ("reward=exact_match", "reward=bradley_terry", "algo.critic.start=zero"),
    ),
    (("eval.samples=2",), ("in eval", "pass_at=[1, 4]", "samples=4 or more")),
    (("eval.samples=2", "eval.pass_at=[]"), ("in eval", "pass_at=[1]")),
    (("tracking.uri=https://me:secret@host/",), ("in tracking", "MLFLOW_TRACKING_PASSWORD")),
    (("study=a/b",), ("study='a/b'", "letters, digits")),
    (("study=..",), ("study='..'", "letters, digits")),
    (("names.method=a/b",), ("names.method='a/b'", "letters, digits")),
    (("model.quantization=nf4",), ("in model", "model.lora.rank=16")),
    (("model.path={files}/nothing_here",), ("model.path=", "no config.json", "save_pretrained")),
    (("model.path={files}/missing",), ("model.path=", "missing", "no config.json")),
    (("model.path={files}/model",), ("cannot be loaded from", "files", "model.path=<folder>")),
    (("rl.max_prompt_tokens=2045",), ("rl.max_prompt_tokens=2045", "rl.max_new_tokens=8", "context of 2048", "lower")),
    (("eval.max_new_tokens=1100",), ("eval.max_new_tokens=1100", "context of 2048", "lower")),
    (("rl.max_prompt_tokens=10",), ("row train-0", "tokens", "max_prompt_tokens=10", "raise max_prompt_tokens")),
    (("model.context=40",), ("rl.max_prompt_tokens=1024", "context of 40")),
    (("data.test_rows=99999999",), ("data.test_rows=99999999", "less than or equal to 50000")),
    (("reward=custom",), ("reward.function is not set", "reward.function=...")),
    (("reward=custom", "reward.function=digits"), ("reward.function='digits'", "path/to/file.py:name")),
    (("reward=custom", "reward.function=nowhere.rewards:fn"), ("nowhere", "install it")),
    (("reward=custom", "reward.function={files}/missing.py:fn"), ("no such file", "missing.py")),
    (("reward=custom", "reward.function={files}/broken.py:half"), ("broken.py", "SyntaxError")),
    (("reward=custom", "reward.function={files}/rewards.py:digit"), ("no 'digit' in", "rewards.py", "digits")),
    (("reward=custom", "reward.function={files}/rewards.py:constant"), ("'constant' is not a plain function",)),
    (("reward=custom", "reward.function={files}/rewards.py:takes_nothing"), ("prompts and completions by name",)),
    (("reward=custom", "reward.function={files}/rewards.py:needs_level"), ("requires level", "its columns are")),
    ((*GSM, "data.path={files}/missing.jsonl"), ("missing.jsonl", "no such file")),
    ((*GSM, "data.path={files}/malformed.jsonl"), ("malformed.jsonl, line 41", "not JSON")),
    ((*GSM, "data.path={files}/list.jsonl"), ("list.jsonl, line 41", "expected an object", "list")),
    ((*GSM, "data.path={files}/empty.jsonl"), ("empty.jsonl", "the dataset is empty")),
    ((*GSM, "data.path={files}/lines.json"), ("lines.json, line 2", "named .jsonl")),
    ((*GSM, "data.path={files}/latin.jsonl"), ("latin.jsonl", "UTF-8")),
    ((*GSM, "data.path={files}/good.csv"), ("good.csv", "supported are", ".parquet")),
    ((*GSM, "data.path={files}/cut.jsonl.gz"), ("cut.jsonl.gz", "cannot be read")),
    ((*GSM, "data.path={files}/not.parquet"), ("not.parquet", "not a readable parquet")),
    (
        (*GSM, "data.path={files}/column.jsonl", "data.train_rows=null"),
        ("column.jsonl, line 41", "'answer' is missing", "question, reply"),
    ),
    ((*GSM, "data.path={files}/blank.jsonl"), ("blank.jsonl, line 41", "'question'", "not blank")),
    ((*GSM, "data.path={files}/unmarked.jsonl", "data.train_rows=null"), ("unmarked.jsonl, line 41", "#### <number>")),
    ((*GSM, "data.path={files}/wordy.jsonl", "data.train_rows=null"), ("reference", "not a number", "'six'")),
    ((*GSM, "data.path={files}/long.jsonl", "data.train_rows=null"), ("row train-", "raise max_prompt_tokens")),
    ((*GSM, "data.path={files}/wordy_answer.jsonl"), ("demonstration", "more than 2048", "too_long=drop")),
    ((*GSM, "data.path={files}/few.jsonl"), ("no training rows are left", "data.validation_rows")),
    ((*GSM, "data.path={files}/nothing_here"), ("nothing_here", "no data file in this folder")),
    ((*GSM, "data.path={files}/mixed"), ("other.jsonl", "neither train nor test")),
    (
        (*GSM, "data.path={files}/good.jsonl", "data.test_path={files}/same.jsonl", "data.train_rows=null"),
        ("same prompt", "test row test-0", "remove the row"),
    ),
    ((*GSM, "data.test_path={files}/good.jsonl"), ("data.test_path", "data.path")),
    ((*GSM, "data.path={files}/good.jsonl", "data.template=Q:"), ("data.template", "{question}")),
    ((*MATHS, "data.path={files}/unboxed.jsonl"), ("unboxed.jsonl, line 41", "'solution'", "\\boxed{}")),
    ((*MATHS, "data.path={files}/unsolved.jsonl"), ("unsolved.jsonl, line 41", "'solution' is missing", "problem")),
    ((*SVAMP, "data.path={files}/no_number.jsonl"), ("no_number.jsonl, line 41", "'Answer'", "number", "'four'")),
    ((*SVAMP, "data.path={files}/no_sum.jsonl"), ("no_sum.jsonl, line 41", "'Equation'", "+ - * /", "'exit()'")),
    ((*SVAMP, "data.path={files}/good.jsonl"), ("good.jsonl, line 1", "'Body' is missing", "question, answer")),
    ((*QA, "data.path={files}/column.jsonl"), ("column.jsonl, line 41", "'answer' is missing", "question, reply")),
    (QA, ("no data source", "data.path=<file or folder>", "data.name=")),
    ((*OWN, "data.path={files}/good.jsonl"), ("good.jsonl, line 1", "'prompt' is missing", "question, answer")),
    ((*OWN, "data.path={files}/good.jsonl", "data.prompt=question"), ("data.completion=<column>", "sft.enabled=false")),
    ((*OWN, "data.path={files}/good.jsonl", "data.chosen=answer"), ("data.chosen", "data.rejected", "both or neither")),
    (
        (
            *OWN,
            "data.path={files}/good.jsonl",
            "data.prompt=question",
            "data.completion=answer",
            "reward=bradley_terry",
        ),
        ("no preference pairs", "data.chosen=<column>", "data.rejected=<column>"),
    ),
]


def small_run(arguments: tuple[str, ...], files: Path) -> list[str]:
    """The arguments of a small run; settings of data=arithmetic are left out where another dataset is chosen."""
    only_arithmetic = ("data.",) if any(override.startswith("data=") for override in arguments) else ()
    small = [override for override in SMALL if not override.startswith(only_arithmetic)] if only_arithmetic else SMALL
    return [*small, *(override.replace("{files}", str(files)) for override in arguments)]


@pytest.mark.parametrize(("arguments", "words"), BEFORE_ANYTHING, ids=lambda value: " ".join(value)[:80])
def test_invalid_input_is_an_error_before_anything_is_written(
    arguments: tuple[str, ...], words: tuple[str, ...], files: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as refused:
        run(config(*small_run(arguments, files), f"output_dir={tmp_path}/outputs"))
    message = str(refused.value)
    missing = [word for word in words if word not in message.replace(str(files), "files")]
    assert not missing, f"{message!r} does not say {missing}"
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="a GPU is available; not tested: the error for hardware=gpu_24gb without one"
)
def test_a_missing_gpu_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"hardware\.device=cuda.*hardware=cpu"):
        run(config("hardware=gpu_24gb", f"output_dir={tmp_path}/outputs"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("reward.function={files}/rewards.py:raises",), ("raised RuntimeError: no luck today", "rewards.py, line 3")),
        (("reward.function={files}/rewards.py:short",), ("returned 1 values for 6 completions",)),
        (("reward.function={files}/rewards.py:nan",), ("returned nan", "finite number")),
        (("reward.function={files}/rewards.py:text",), ("returned 'good'", "finite number")),
        (("reward.function={files}/rewards.py:alone",), ("returned float", "a list of 6 numbers")),
        (("reward.function={files}/rewards.py:digits", "eval.samples=4"), ("eval.samples=0", "reward=exact_match")),
    ],
    ids=lambda value: value[0][-40:],
)
def test_an_error_during_the_run_is_a_failed_run_with_a_reason(
    arguments: tuple[str, ...], words: tuple[str, ...], files: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as refused:
        run_small(tmp_path, "reward=custom", *(override.replace("{files}", str(files)) for override in arguments))
    (folder,) = (tmp_path / "runs" / "single").iterdir()
    assert status(folder)["status"] == "failed"
    assert all(word in status(folder)["reason"] for word in words), status(folder)["reason"]
    assert all(word in str(refused.value) for word in words)
    assert not (folder / "final").exists()
    assert not (folder / "eval.jsonl").exists()


def test_nan_or_inf_stops_the_run_and_leaves_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(InvariantBroken, match=r"(?s)is (nan|inf).*lower the learning rate.*invariants\.finite=warn"):
        run_small(tmp_path, "sft.optimizer.learning_rate=1e30", "sft.optimizer.warmup_steps=0", "sft.steps=4")
    (folder,) = (tmp_path / "runs" / "single").iterdir()
    assert status(folder)["status"] == "failed"
    assert not artifacts(tmp_path)


def test_a_learning_rate_that_changes_no_weight_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvariantBroken, match=r"no weight changed.*Raise the learning rate"):
        run_small(tmp_path, "sft.optimizer.learning_rate=1e-30", "sft.optimizer.weight_decay=0")


def test_a_damaged_artifact_is_not_reused(tmp_path: Path) -> None:
    run_small(tmp_path)
    (artifact,) = artifacts(tmp_path)
    (artifact / "model" / "model.safetensors").write_bytes(b"half")
    run_small(tmp_path, "seed=1")
    assert [path.name for path in (tmp_path / "artifacts").glob("*.damaged-1")] == [f"{artifact.name}.damaged-1"]
    assert (artifact / "model" / "model.safetensors").stat().st_size > 1000


def artifacts(output_dir: Path) -> list[Path]:
    """The folders that a later run would use as a finished SFT model."""
    return [path for path in (output_dir / "artifacts").iterdir() if re.fullmatch("sft-[0-9a-f]{12}", path.name)]


def assert_one_message(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Assert that the process failed with one error message that contains `words` and without a traceback."""
    assert done.returncode in (1, 2), done
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr + done.stdout
    assert all(word in done.stderr for word in words), done.stderr


def test_an_unknown_algorithm_on_the_command_line() -> None:
    assert_one_message(type_in("algo=ppoo"), "algo=ppoo", "did you mean ppo?", "grpo")


def test_an_unknown_key_on_the_command_line() -> None:
    assert_one_message(type_in("rl.step=3"), "rl.step")


def test_an_output_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")  # below a file, because a superuser may write to every folder
    done = type_in(*SMALL, f"output_dir={tmp_path}/file/outputs")
    assert_one_message(done, f"{tmp_path}/file", "output_dir=")
    assert (tmp_path / "file").read_text() == ""


def test_a_reward_that_raises_on_the_command_line(files: Path, tmp_path: Path) -> None:
    function = f"reward.function={files}/rewards.py:raises"
    done = type_in(*SMALL, "tracking.enabled=false", "reward=custom", function, f"output_dir={tmp_path}")
    assert_one_message(done, "raised RuntimeError: no luck today", "rewards.py, line 3")
    (folder,) = (tmp_path / "runs" / "single").iterdir()
    assert status(folder)["status"] == "failed"
    assert all((artifact / "manifest.json").is_file() for artifact in artifacts(tmp_path))


def test_an_unavailable_model_is_an_error_within_seconds(tmp_path: Path) -> None:
    began, worked = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = type_in(
        "model=gemma2b",
        "hardware=cpu",
        f"output_dir={tmp_path}/outputs",
        HF_HOME=str(tmp_path / "cache"),
        HF_HUB_CACHE=str(tmp_path / "cache"),
        HF_ENDPOINT="http://127.0.0.1:9",
    )
    seconds, worked = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - worked
    assert_one_message(done, "google/gemma-2b-it", "model.path=", "cache", "HF_TOKEN")
    assert worked < 5, f"{worked:.1f} s of work"
    assert seconds < 15, f"it took {seconds:.1f} s"  # 5 s on free cores; the clients of the hub retry for 20 s
    assert not (tmp_path / "outputs").exists()
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
