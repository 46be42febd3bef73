"""The command `alignbench check-reward`: a reward on a file of responses."""

import gzip
import json
import subprocess
import sys

import pytest
from shared_data import SHARED_DATA, needs_shared

from alignbench.commands import check_reward
from alignbench.core.errors import UserError
from alignbench.rewards.bradley_terry import BradleyTerry
from alignbench.rewards.check import format_report, load_responses, score_responses

LABELLED = SHARED_DATA / "gsm8k" / "example_model_solutions.jsonl"
ROWS = [
    {
        "prompt_id": f"p{i // 2}",
        "prompt": f"q{i // 2}",
        "response": f"5*{i}={5 * i}\n#### {5 * (i - i % 2)}",
        "reference": str(5 * i),
        "correct": i % 2 == 0,
        "stratum": None,
    }
    for i in range(40)
]


@pytest.fixture
def file(tmp_path):
    def write(rows=ROWS, name="eval.jsonl"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return tmp_path / name

    return write


def printed(capsys, *words):
    check_reward.main([*map(str, words)])
    return capsys.readouterr().out


@pytest.mark.parametrize("name", ["eval.jsonl", "eval.jsonl.gz"])
def test_the_responses_of_a_run_are_scored_and_compared_with_the_labels(file, capsys, name):
    out = printed(capsys, "reward=gsm8k_hybrid", f"path={file(name=name)}")
    assert out.startswith("40 responses to 20 prompts\nscore  mean ")
    assert "correct: 20 (50.0%), mean 0.7900\nincorrect: 20 (50.0%), mean 0.1900" in out
    assert "AUC 1.000, 95% interval 0." in out
    assert "  correctness              mean 0.3000\n" in out
    assert "warning" not in out
    assert "\nlowest 0.19 incorrect: " in out
    assert out.endswith("\nhighest 0.79 correct: 5*38=190 #### 190\nhighest 0.79 correct: 5*36=180 #### 180\n")


def test_a_reward_that_does_not_separate_is_a_warning(file, capsys):
    out = printed(capsys, "reward=steps", f"path={file()}", "reward.rule=any_sign")
    assert "warning: all responses have the same score" in out
    out = printed(capsys, "reward=gsm8k_hybrid", f"path={file()}", "reward.correct=0", "reward.noise_std=0.1")
    assert "warning: correct answers do not reliably score above incorrect ones" in out
    out = printed(capsys, "reward=gsm8k_hybrid", f"path={file()}", "reward.correct=-1")
    assert "warning: the mean score of correct answers is not above that of incorrect ones" in out
    assert "warning: 100% of incorrect answers have the highest score" in out


def test_columns_can_be_named_and_labels_are_optional(file, capsys):
    rows = [{"question": "q", "completion": f"#### {i % 2}", "gold": "1", "ok": i % 2} for i in range(8)]
    words = ["reward=exact_match", f"path={file(rows)}", "prompt=question", "reference=gold"]
    assert "AUC" not in printed(capsys, *words)
    assert "correct: 4 (50.0%), mean 1.0000" in printed(capsys, *words, "label=ok")


def test_a_weighted_reward_of_the_command_line_is_scored(file, capsys):
    out = printed(
        capsys,
        "reward=weighted",
        "+reward@reward.parts.style.reward=steps",
        "+reward.parts.style.weight=0.5",
        f"path={file()}",
    )
    assert "  part/style               mean 0.0000\n" in out
    assert "  part/correct             mean 0.5000\n" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reward=exact_match"], "name a reward and a file"),
        (["reward=exact_match", "path={}", "mode=strict"], "'mode=strict' is not understood"),
        (["reward=exact_mach", "path={}"], "exact_mach"),
        (["reward=exact_match", "path={}", "reward.mode=some"], "reward.mode='some': "),
        (["reward=exact_match", "path=nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["reward=exact_match", "path={}", "label=right"], "label=right, but the file has no such column"),
        (["reward=exact_match", "path={}", "label=prompt"], "column 'prompt' must be true or false, found 'q0'"),
        (["reward=exact_match", "path={}", "response=correct"], "column 'correct' must be a text"),
        (
            ["reward=math_heuristic", "path={}", "reference=nothing"],
            "reference=nothing, but the file has no such column",
        ),
        (["reward=bradley_terry", "path={}"], "this reward needs a trained reward model"),
    ],
)
def test_an_invalid_argument_is_one_message(file, capsys, words, message):
    with pytest.raises(SystemExit) as left:
        check_reward.main([word.format(file()) for word in words])
    assert message in capsys.readouterr().err
    assert left.value.code in (1, 2)


def test_a_file_without_responses_is_an_error_that_lists_its_columns(file):
    with pytest.raises(UserError, match="which column is the response.*question, solution"):
        load_responses(str(file([{"question": "q", "solution": "s"}])), {})


def test_help_is_quick_and_imports_no_torch():
    code = (
        "from alignbench.commands.check_reward import main; main(['-h'])\nimport sys; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "alignbench check-reward reward=OPTION path=FILE" in done.stdout


def test_a_reward_with_a_reward_model_is_an_error(file):
    with pytest.raises(UserError, match="needs a trained reward model"):
        score_responses(BradleyTerry(), load_responses(str(file()), {}))


@needs_shared("gsm8k/example_model_solutions.jsonl", tests="the AUC of three rewards on labelled GSM8K solutions")
def test_the_published_weights_hardly_separate_labelled_solutions(file, option):
    rows = []
    for line in LABELLED.read_text().splitlines():
        row = json.loads(line)
        answers = [value for value in row.values() if isinstance(value, dict)]
        rows += [
            {
                "prompt": row["question"],
                "reference": row["ground_truth"].replace("A: ", "#### "),
                "response": answer["solution"].replace("A: ", "#### "),
                "correct": answer["is_correct"],
            }
            for answer in answers
        ]
    responses = load_responses(str(file(rows)), {})
    assert len(responses.rows) == 5276
    for name, expected in (("gsm8k_hybrid", "1.000"), ("gsm8k_hybrid_readme", "0.517"), ("math_heuristic", "0.614")):
        out = format_report(responses, score_responses(option(name), responses))
        assert f"AUC {expected}, 95% interval" in out
        assert ("of incorrect answers have the highest score" in out) == (expected == "0.517")
