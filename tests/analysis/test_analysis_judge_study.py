"""A judged study from the command line to the report: answer pairs, spending limit, resuming, agreement."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from synthetic import SEEDS, Fake, Studies, config_of, four_by_five, two_by_three

from alignbench.core.errors import UserError
from analysis.__main__ import main
from analysis.findings import find
from analysis.judge.answer_pairs import make_answer_pairs
from analysis.judge.json_data import judgement_to_json
from analysis.judge.panel import compose_judge, parse_judges
from analysis.judge.resolve import resolve_judgement
from analysis.judge.text import collect_judge_warnings, format_sample
from analysis.study.load import load_study
from analysis.study.options import Options
from validation.simulations.simulated_judge import JudgeModel

SIMULATED = ("judge=openai_compatible", "judge.model=simulated", "judge.json_schema=true", "judge.concurrency=4")


def answers(fake: Fake, better: float):
    """Answers of random quality with mean `better`, and of random length."""
    rng = np.random.default_rng([fake.seed, *fake.method.encode()])
    rows = [f"quality={better + rng.normal():.3f} {'x' * int(rng.integers(1, 60))}" for _ in range(200)]
    return lambda index: rows[index]


def contest(runs: list[Fake], **better: float) -> list[Fake]:
    for fake in runs:
        fake.response = answers(fake, better.get(fake.method, 0.0))
    return runs


class Folders(Studies):
    """Studies without a tracker: the judge reads only the answers."""

    def __init__(self, output_dir: Path) -> None:
        self.output_dir = output_dir

    def write(self, study: str, runs: list[Fake], plan: bool = True) -> str:
        for fake in runs:
            fake.tracked = False
        return super().write(study, runs, plan)


@pytest.fixture
def studied(tmp_path: Path) -> Studies:
    made = Folders(tmp_path)
    made.write("two", contest(two_by_three(), grpo=1.0))
    return made


def words(server, *more: str) -> list[str]:
    return [*SIMULATED, f"judge.base_url={server.url}", *more]


def report(studied: Studies, study: str = "two") -> dict:
    return json.loads((studied.output_dir / "reports" / study / "report.json").read_text())


def run(studied: Studies, server, *more: str, study: str = "two") -> int:
    return main([f"study={study}", f"output_dir={studied.output_dir}", *words(server, *more)])


def test_judged_report_shows_score_interval_and_cost(studied, server, capsys):
    server.judge_model = JudgeModel(position=0.5, noise=0.3)
    assert run(studied, server, "judge.max_prompts=50", "judge.prices.input=1", "judge.prices.output=2") == 0
    printed, logged = capsys.readouterr()
    page = (studied.output_dir / "reports" / "two" / "report.html").read_text()
    text = (studied.output_dir / "reports" / "two" / "report.md").read_text()
    found = report(studied)["judge"][0]
    assert (found["treatment"], found["baseline"], found["model"]) == ("grpo", "ppo", "simulated")
    assert found["win"] + found["tie"] + found["loss"] == 150
    assert found["prompts"] == 50
    assert found["score"] == pytest.approx((found["win"] + found["tie"] / 2) / 150)
    assert 0.5 < found["ci95"][0] < found["score"] < found["ci95"][1]
    assert found["shown_first_only"]["estimate"] > found["score"] > found["shown_second_only"]["estimate"]
    assert found["order_bias"]["first"] > found["order_bias"]["second"]
    assert found["cost_usd"] == pytest.approx(len(server.calls) * (1000 * 1 + 100 * 2 - 400 * 1) / 1e6)
    assert found["calls"] == len(server.calls) == 300
    assert "300 calls to make, estimated cost $" in logged
    assert "150 of 150 answer pairs judged" in logged
    assert "judge: GRPO" in printed
    for place in (page, text):
        assert (
            f"GRPO wins {found['win']}, ties {found['tie']} and loses {found['loss']} of 150 answer pairs against PPO"
            in place
        )
        assert "the judge prefers GRPO" in place
    assert "judged by a language model" not in page
    assert 'href="#judge"' in page


def test_a_second_report_is_identical_and_makes_no_calls(studied, server):
    run(studied, server, "judge.max_prompts=30")
    files = {f: f.read_bytes() for f in (studied.output_dir / "reports" / "two").rglob("*.*")}
    made = len(server.calls)
    run(studied, server, "judge.max_prompts=30")
    run(studied, server, "judge.max_prompts=30", "judge.mode=cache_only")
    assert len(server.calls) == made
    assert {f: f.read_bytes() for f in (studied.output_dir / "reports" / "two").rglob("*.*")} == files


def test_report_without_a_judge(studied, server):
    assert main(["study=two", f"output_dir={studied.output_dir}", "judge=none"]) == 0
    assert report(studied)["judge"] is None
    page = (studied.output_dir / "reports" / "two" / "report.html").read_text()
    assert "Nothing here was judged by a language model" in page
    assert 'href="#judge"' not in page
    assert not (studied.output_dir / "judge.sqlite").exists()


def test_a_killed_process_resumes_from_the_cache(studied, server):
    server.before = lambda: time.sleep(0.02)
    command = [
        sys.executable,
        "-m",
        "analysis",
        "study=two",
        f"output_dir={studied.output_dir}",
        *words(server, "judge.max_prompts=60"),
    ]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)
    wait_for(lambda: len(server.calls) >= 100)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.3)  # pending calls
    kept = sqlite3.connect(studied.output_dir / "judge.sqlite").execute("SELECT count(*) FROM replies").fetchone()[0]
    before = len(server.calls)
    assert 100 - 4 <= kept <= before
    assert before - kept <= 4  # at most the pending calls
    assert run(studied, server, "judge.max_prompts=60") == 0
    assert len(server.calls) - before == 360 - kept
    assert report(studied)["judge"][0]["unjudged"] == 0


def wait_for(what, seconds=60):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_spending_limit_gives_a_partial_result(studied, server):
    prices = ("judge.prices.input=1", "judge.prices.output=1", "judge.max_prompts=50")
    assert run(studied, server, *prices, "judge.max_dollars=0.1") == 0
    found = report(studied)["judge"][0]
    assert found["stopped"] == "judge.max_dollars=0.1 is reached"
    assert found["unjudged"] > 0
    assert 0.08 < found["cost_usd"] <= 0.1
    assert found["ci95"]
    assert any("Judging stopped early" in text for text in report(studied)["warnings"])
    assert run(studied, server, *prices) == 0
    assert report(studied)["judge"][0]["unjudged"] == 0
    assert len(server.calls) == 300


def test_answer_pairs_share_prompt_and_seed(studied):
    study = load_study("two", studied.output_dir)
    made = make_answer_pairs(study, ["ppo", "grpo"], 20)
    assert len(made.pairs) == 20 * 3
    assert {pair.seed for pair in made.pairs} == set(SEEDS[:3])
    table = {(run.method, run.seed, row["prompt_id"]): row["response"] for run in study.runs for row in run.answers}
    for pair in made.pairs:
        assert (pair.treatment, pair.baseline) == ("grpo", "ppo")
        assert pair.answers == tuple(table[method, pair.seed, pair.prompt_id] for method in ("grpo", "ppo"))
    more = make_answer_pairs(study, ["ppo", "grpo"], 30)
    assert more.pairs[:60] == made.pairs  # a larger sample contains the smaller one
    assert (made.prompts, made.available, made.unpaired) == (20, 200, 0)
    assert [pair.prompt_id for pair in made.pairs] != sorted(pair.prompt_id for pair in made.pairs)


def test_failed_runs_have_no_pairs_and_unpaired_answers_are_counted(tmp_path, server):
    made = Folders(tmp_path)
    runs = contest(two_by_three())
    runs[0].status, runs[0].reason = "failed", "out of memory"
    made.write("s", runs)
    eval_file = next(tmp_path.glob("runs/s/ppo*s123*/eval.jsonl"))
    lines = [line for line in eval_file.read_text().splitlines() if json.loads(line)["prompt_id"] != "test-0007"]
    eval_file.write_text("\n".join(lines) + "\n")
    found = make_answer_pairs(load_study("s", tmp_path), ["ppo", "grpo"], 500)
    assert len(found.pairs) == 399
    assert found.unpaired == 201  # a whole seed of GRPO, and one answer
    assert {pair.seed for pair in found.pairs} == {123, 777}


def test_four_methods_give_six_comparisons_and_a_ranking(tmp_path, server):
    made = Folders(tmp_path)
    made.write("four", contest(four_by_five(), rloo=1.0, grpo=0.5))
    server.judge_model = JudgeModel(noise=0.5)
    found = resolve_judgement(
        load_study("four", tmp_path),
        ["ppo", "grpo", "rloo", "dr_grpo"],
        words(server, "judge.max_prompts=30"),
        lambda text: None,
    )
    rows = {(row["treatment"], row["baseline"]): row for row in judgement_to_json(found)}
    assert list(rows) == [
        ("grpo", "ppo"),
        ("rloo", "ppo"),
        ("dr_grpo", "ppo"),
        ("rloo", "grpo"),
        ("dr_grpo", "grpo"),
        ("dr_grpo", "rloo"),
    ]
    assert rows["rloo", "ppo"]["bradley_terry"]["ci95"][0] > 0.6
    assert rows["dr_grpo", "rloo"]["bradley_terry"]["ci95"][1] < 0.4
    assert rows["rloo", "grpo"]["bradley_terry"]["estimate"] == pytest.approx(rows["rloo", "grpo"]["score"], abs=0.06)
    assert sum(row["calls"] for row in rows.values()) == len(server.calls) == 30 * 5 * 6 * 2


def test_second_judge_reports_agreement(studied, server):
    assert (
        run(
            studied,
            server,
            "judge.max_prompts=40",
            "judge.second=openai_compatible",
            "second.model=other",
            f"second.base_url={server.url}",
            "second.json_schema=true",
            "second.criteria=Another taste.",
        )
        == 0
    )
    found = report(studied)["judge"][0]["second_judge"]
    assert found["model"] == "other"
    assert (found["agreement"], found["kappa"]) == (1.0, 1.0)  # the same preferences, without noise
    assert len(server.calls) == 480
    assert "second judge, other: score; agreement; kappa" in (studied.output_dir / "reports/two/report.md").read_text()


def test_human_labels_correct_the_score(studied, server):
    study = load_study("two", studied.output_dir)
    labels = studied.output_dir / "labels.jsonl"
    pairs = make_answer_pairs(study, ["ppo", "grpo"], 40).pairs
    rows = [{"prompt_id": p.prompt_id, "seed": p.seed, "methods": ["ppo", "grpo"], "winner": "ppo"} for p in pairs[:60]]
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(studied, server, "judge.max_prompts=40", f"judge.human_labels={labels}") == 0
    found = report(studied)["judge"][0]
    assert found["score"] > 0.6
    assert found["people"]["labels"] == 60
    assert found["people"]["score"]["estimate"] == 0.0  # the labels always prefer PPO
    assert found["people"]["agreement"] < 0.4


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1: not valid JSON"),
        ("[]", "expected an object with the keys prompt_id, seed, methods, winner"),
        ('{"prompt_id": "a", "seed": 1, "methods": ["a", "b"], "winner": "c"}', "a winner that is one of them or tie"),
        ('{"prompt_id": "a", "seed": 1, "methods": ["a"], "winner": "a"}', "expected two methods"),
    ],
)
def test_invalid_labels_are_reported_by_line(studied, server, capsys, line, message):
    labels = studied.output_dir / "labels.jsonl"
    labels.write_text(line + "\n")
    assert run(studied, server, f"judge.human_labels={labels}") == 2
    assert message in capsys.readouterr().err
    assert server.calls == []


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["judge=gpt5"], "judge=gpt5: unknown option; choose one of gpt4o_mini, gpt6_luna, none, openai_compatible"),
        (["judge=gpt4o_mini", "judge.modell=x"], "modell"),
        (["judge=gpt4o_mini", "judge.max_prompts=0"], "judge.max_prompts=0: Input should be greater than"),
        (["judge=gpt4o_mini", "judge.prices.input=dear"], "judge.prices.input='dear'"),
        (["judge=openai_compatible"], "judge.model is not set; set it with judge.model=..."),
        (["judge.model=x"], "choose a judge with judge=OPTION"),
        (["judge=gpt4o_mini", "second.model=x"], "no second judge is configured; set judge.second=OPTION"),
        (["judge=gpt4o_mini"], "judge.api_key_env=OPENAI_API_KEY: the environment variable is not set"),
    ],
)
def test_an_invalid_judge_is_a_one_line_error(studied, capsys, monkeypatch, typed, message):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert main(["study=two", f"output_dir={studied.output_dir}", *typed]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert message in error


def declare_judge(fake: Fake, server, **changes) -> None:
    judge = yaml.safe_load((Path(__file__).parents[2] / "conf/judge/openai_compatible.yaml").read_text())
    fake.config = {"judge": {**judge, "model": "simulated", "base_url": server.url, "max_prompts": 10, **changes}}


def test_a_judge_declared_by_the_runs_is_used(tmp_path, server):
    made, runs = Folders(tmp_path), contest(two_by_three())
    for fake in runs:
        declare_judge(fake, server)
    made.write("s", runs)
    assert main(["study=s", f"output_dir={tmp_path}"]) == 0
    assert report(made, "s")["judge"][0]["prompts"] == 10
    assert main(["study=s", f"output_dir={tmp_path}", "judge=none"]) == 0
    assert report(made, "s")["judge"] is None


def test_a_declared_judge_without_a_key_does_not_prevent_the_report(tmp_path, server, monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    made, runs = Folders(tmp_path), contest(two_by_three())
    for fake in runs:
        declare_judge(fake, server, api_key_env="MY_KEY")
    made.write("s", runs)
    assert main(["study=s", f"output_dir={tmp_path}"]) == 0
    assert report(made, "s")["judge"] == []
    assert any(
        "The answers were not judged: judge.api_key_env=MY_KEY" in text for text in report(made, "s")["warnings"]
    )
    assert "n/a: judge.api_key_env=MY_KEY" in (tmp_path / "reports/s/report.html").read_text()


def test_a_judge_of_the_same_model_family_is_warned_of(studied, server):
    found = resolve_judgement(
        load_study("two", studied.output_dir),
        ["ppo", "grpo"],
        words(server, "judge.max_prompts=5", "judge.family=[TINY]"),
        lambda text: None,
    )
    assert found.same_family == ("tiny",)
    assert any("the same model family as tiny" in text for _, text, _ in collect_judge_warnings(found))


def test_many_ties_and_position_bias_are_warned_of(studied, server):
    server.judge_model = JudgeModel(position=5.0, noise=0.1)
    found = resolve_judgement(load_study("two", studied.output_dir), ["ppo", "grpo"], words(server), lambda text: None)
    texts = " ".join(text for _, text, _ in collect_judge_warnings(found))
    assert "More than 30% of the judged answer pairs are ties" in texts
    assert "depends on which answer is presented first" in texts


def test_a_study_with_one_method_has_nothing_to_judge(tmp_path, server):
    made = Folders(tmp_path)
    made.write("one", contest([fake for fake in two_by_three() if fake.method == "ppo"]))
    assert run(made, server, study="one") == 0
    assert report(made, "one")["judge"] == []
    assert server.calls == []


def test_samples_show_the_result_of_the_judge(tmp_path, server):
    made = Folders(tmp_path)
    made.write("same", two_by_three())  # identical answers tie without a call
    assert run(made, server, study="same") == 0
    assert server.calls == []
    page = (tmp_path / "reports/same/report.html").read_text()
    assert page.count("Judge: GRPO and PPO tie.") == page.count('<div class="sample">') > 0


def test_format_sample(studied, server):
    study = load_study("two", studied.output_dir)
    found = resolve_judgement(study, ["ppo", "grpo"], words(server, "judge.max_prompts=5"), lambda text: None)
    texts = set()
    for pair in make_answer_pairs(study, ["ppo", "grpo"], 5).pairs:
        gap = np.subtract(*(float(answer.split()[0].removeprefix("quality=")) for answer in pair.answers))
        winner, loser = ("GRPO", "PPO") if gap > 0 else ("PPO", "GRPO")
        expected = f"{winner} is better than {loser}, in both orders" if gap else "GRPO and PPO tie"
        assert format_sample(found, pair.seed, pair.prompt_id) == [expected]
        texts.add(expected)
    assert len(texts) == 3
    assert format_sample(found, 999, pair.prompt_id) == format_sample(None, 1, "x") == []


def test_hostile_answers_do_not_break_the_report(tmp_path, server):
    made, runs = Folders(tmp_path), two_by_three()
    for fake in runs:
        fake.response = lambda index, fake=fake: f"<script>{fake.seed}</script>\x00\u202e[[A]] {fake.method} {index}"
    made.write("s", runs)
    assert run(made, server, "judge.max_prompts=10", study="s") == 0
    assert "<script>42" not in (tmp_path / "reports/s/report.html").read_text()


def test_options_of_the_judge():
    mini, luna = compose_judge("gpt4o_mini"), compose_judge("gpt6_luna")
    assert (mini.model, mini.shutdown_date, mini.successor) == ("gpt-4o-mini-2024-07-18", "2027-01-14", "gpt6_luna")
    assert mini.json_schema
    assert (luna.temperature, luna.seed, luna.reasoning_effort) == (None, None, "none")
    assert compose_judge("none") is None
    assert parse_judges([]) is None
    with pytest.raises(UserError, match="judge.mode='sometimes'"):
        compose_judge("gpt4o_mini", ["judge.mode=sometimes"])


def test_openai_is_not_imported_without_a_judge(studied):
    code = (
        "import sys; from analysis.__main__ import main; "
        f"main(['study=two', 'output_dir={studied.output_dir}']); assert 'openai' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=Path(__file__).parents[2])


def test_findings_without_a_judge_have_no_judgement(studied):
    assert config_of(two_by_three()[0]).get("judge") is None
    assert find(Options(study="two", output_dir=studied.output_dir)).judgement is None
