"""Loading: every run is shown, whatever happened to it, and numbers come from MLflow."""

import json
import math
from dataclasses import replace

import pytest
from synthetic import GRPO, SEEDS, Fake, Studies, two_by_three

from alignbench.core.errors import UserError
from analysis.__main__ import main
from analysis.findings import find
from analysis.study.files import read_lines
from analysis.study.load import label_methods, load_study
from analysis.study.options import Options, declare


def findings_of(studies: Studies, name: str, **options):
    return find(Options(study=name, output_dir=studies.output_dir, **options))


@pytest.fixture(scope="module")
def plain(studies):
    return studies.write("loading", two_by_three())


def test_a_whole_study(studies, plain):
    study = load_study(plain, studies.output_dir)
    assert study.methods == ["ppo", "grpo"]
    assert study.seeds == [42, 123, 777]
    assert all(run.status == "finished" and run.counted and run.planned for run in study.runs)
    assert [run.metrics["final/accuracy"] for run in study.runs_of("grpo")] == pytest.approx(GRPO)
    curve = study.runs[0].curves["eval/accuracy"]
    assert curve.steps == tuple(range(21))
    assert study.notes == ()


def test_numbers_come_from_mlflow(studies, plain):
    """The file on disk says something else; MLflow's number is the one that counts."""
    folder = next((studies.output_dir / "runs" / plain).glob("ppo-*-s42-*"))
    whole = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(whole.replace('"final/accuracy": 0.624', '"final/accuracy": 0.1'))
    assert load_study(plain, studies.output_dir).runs_of("ppo")[0].metrics["final/accuracy"] == 0.624
    (folder / "metrics.jsonl").write_text(whole)


def test_a_run_that_mlflow_lacks_is_read_from_its_folder_with_a_note(studies):
    runs = two_by_three()
    runs[0].tracked = False
    study = load_study(studies.write("untracked", runs), studies.output_dir)
    assert study.runs_of("ppo")[0].metrics["final/accuracy"] == 0.624
    assert any("metrics.jsonl" in note for note in study.notes)


def test_without_any_store_the_folders_are_enough(studies, plain, tmp_path):
    (tmp_path / "runs").symlink_to(studies.output_dir / "runs")
    study = load_study(plain, tmp_path)
    assert len(study.notes) == 6
    assert not (tmp_path / "mlflow.db").exists(), "reading must not create a store"


def test_a_run_whose_folder_is_gone_is_still_shown(studies):
    runs = two_by_three()
    runs[5].on_disk, runs[5].planned = False, False
    study = load_study(studies.write("folderless", runs), studies.output_dir)
    lost = study.runs_of("grpo")[-1]
    assert lost.metrics["final/accuracy"] == GRPO[2]
    assert "read from MLflow only" in lost.reason


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("failed", "GRPO seed 777 failed: loss is not finite"),
        ("interrupted", "GRPO seed 777 was interrupted"),
        ("running", "GRPO seed 777 has not finished"),
        ("missing", "GRPO seed 777 was planned and never started"),
    ],
)
def test_a_run_without_a_result_is_counted_and_makes_the_study_incomplete(studies, status, words):
    runs = two_by_three()
    runs[5] = Fake("grpo", 777, 0.627, status=status, reason="loss is not finite")
    findings = findings_of(studies, studies.write(f"with-{status}", runs))
    assert findings.verdict.state == "incomplete"
    assert words in findings.verdict.sentence
    assert "5 of 6 planned runs finished" in findings.verdict.sentence
    assert [run.status for run in findings.study.runs].count(status) == 1
    assert findings.warnings[0].level == "stops the verdict"


def test_what_if_counts_the_failed_seed_at_its_last_validation_and_at_the_start(studies):
    runs = two_by_three()
    runs[5] = Fake("grpo", 777, 0.627, status="failed", reason="x")
    findings = findings_of(studies, studies.write("what-if", runs))
    left_out, last, start = findings.sensitivity
    ppo = sum((0.624, 0.641, 0.610)) / 3
    assert left_out.difference.value == pytest.approx((0.645 + 0.615) / 2 - ppo)
    assert start.difference.value == pytest.approx((0.645 + 0.615 + 0.418) / 3 - ppo)
    assert start.difference.value < last.difference.value


def test_nan_is_refused_and_named(studies):
    runs = two_by_three()
    runs[5] = Fake("grpo", 777, math.nan)
    findings = findings_of(studies, studies.write("nan", runs))
    assert findings.verdict.state == "incomplete"
    assert "GRPO seed 777 finished with a held-out accuracy that is not a finite number" in findings.verdict.sentence
    assert findings.pairs[0].cohens_d.reason == "not_finite"


def test_a_duplicate_seed_is_shown_and_not_counted(studies):
    runs = [*two_by_three(), Fake("ppo", 42, 0.99, key="f" * 64, planned=False)]
    findings = findings_of(studies, studies.write("duplicate", runs))
    assert len(findings.study.runs) == 7
    assert [run.counted for run in findings.study.runs].count(False) == 1
    assert findings.method("ppo").scores == (0.624, 0.641, 0.610)
    assert any("second run" in warning.text for warning in findings.warnings)


def test_seeds_that_were_added_later_count_too(studies):
    runs = [*two_by_three(), Fake("ppo", 1001, 0.63, planned=False), Fake("grpo", 1001, 0.64, planned=False)]
    findings = findings_of(studies, studies.write("added", runs))
    assert findings.pairs[0].n == (4, 4)


def test_runs_without_a_plan(studies):
    study = load_study(studies.write("unplanned", two_by_three(), plan=False), studies.output_dir)
    assert len(study.runs) == 6
    assert not study.planned


def test_one_method_planned_with_several_settings_is_several_arms():
    plan = [
        {"method": "grpo", "overrides": ["algo=grpo", f"algo.group_size={size}", "rl.steps=5", f"seed={seed}"]}
        for size in (4, 8)
        for seed in SEEDS[:2]
    ]
    assert label_methods(plan) == ["grpo algo.group_size=4"] * 2 + ["grpo algo.group_size=8"] * 2
    assert label_methods([{"method": "ppo"}, {"method": "grpo"}]) == ["ppo", "grpo"]


def test_unknown_study_lists_the_known_ones(studies, plain):
    with pytest.raises(UserError, match=f"study=nope.*{plain}"):
        load_study("nope", studies.output_dir)


def test_a_study_name_is_not_a_path(studies):
    with pytest.raises(UserError, match="letters, digits"):
        load_study("../etc", studies.output_dir)


def test_a_broken_file_is_named(studies):
    name = studies.write("broken", two_by_three())
    status = next((studies.output_dir / "runs" / name).glob("ppo-*/status.json"))
    status.write_text('{"status": ')
    with pytest.raises(UserError, match=r"status\.json, line 1"):
        load_study(name, studies.output_dir)


def test_a_line_cut_short_is_left_out_and_noted(studies):
    name = studies.write("cut", two_by_three())
    rows = next((studies.output_dir / "runs" / name).glob("ppo-*-s42-*/eval.jsonl"))
    rows.write_text(rows.read_text() + '{"prompt_id": ')
    study = load_study(name, studies.output_dir)
    assert len(study.runs_of("ppo")[0].answers) == 200
    assert any("cut short" in note for note in study.notes)


def test_unknown_metric_and_baseline_say_what_there_is(studies, plain):
    with pytest.raises(UserError, match="final/accuracy"):
        findings_of(studies, plain, metric="final/nonsense")
    with pytest.raises(UserError, match="it has ppo, grpo"):
        findings_of(studies, plain, baseline="dpo")


def test_what_was_declared_in_the_config_decides_unless_typed(studies):
    section = {"metric": "final/avg_reward", "baseline": "grpo", "margin": 0.05, "allow": [], "price_per_hour": 3.0}
    name = studies.write("declared", two_by_three(config={"analysis": section}))
    declared = findings_of(studies, name).declared
    assert (declared.metric, declared.baseline, declared.margin) == ("final/avg_reward", "grpo", 0.05)
    typed = findings_of(studies, name, metric="final/kl", baseline="ppo", margin=0.5)
    assert (typed.declared.metric, typed.declared.baseline, typed.declared.margin) == ("final/kl", "ppo", 0.5)
    assert (typed.pairs[0].treatment, typed.pairs[0].baseline) == ("grpo", "ppo")
    assert findings_of(studies, name).pairs[0].baseline == "grpo"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["study=x", "colour=red"], "'colour=red' is not understood"),
        (["loading"], "'loading' is not understood"),
        ([], "study=NAME is required"),
        (["study=x", "margin=-1"], "must be above zero"),
        (["study=x", "margin=wide"], "not a number"),
        (["study=x", "output_dir=/nowhere"], "There is no study yet"),
    ],
)
def test_a_mistake_is_explained_and_exits_with_2(words, message, capsys):
    assert main(words) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told


def test_help(capsys):
    assert main(["--help"]) == 0
    assert "study=NAME" in capsys.readouterr().out


def test_exit_codes_and_summary(studies, plain, capsys):
    where = f"output_dir={studies.output_dir}"
    assert main([f"study={plain}", where]) == 0
    told = capsys.readouterr().out
    assert told.isascii()
    assert max(map(len, told.replace(str(studies.output_dir), "outputs").splitlines())) <= 80
    assert "INCONCLUSIVE  GRPO - PPO = +0.4 points (95% CI -3.1 to +3.9), 3 vs 3 seeds" in told
    assert told.rstrip().endswith("exit 0 (study complete; an inconclusive verdict is not an error)")
    runs = two_by_three()
    runs[5] = Fake("grpo", 777, 0.6, status="failed", reason="x")
    assert main([f"study={studies.write('exit-3', runs)}", where]) == 3
    unfair = two_by_three()
    unfair[4].manifest = {"artifacts": {"sft": "sft-another"}}
    assert main([f"study={studies.write('exit-4', unfair)}", where]) == 4
    report = json.loads((studies.output_dir / "reports" / "exit-4" / "report.json").read_text())
    assert report["comparisons"][0]["verdict"] == "not_comparable"


def test_where_no_answer_is_called_correct_the_reward_decides(studies, plain):
    study = load_study(plain, studies.output_dir)

    def decided_by(names):
        renamed = [{names.get(name, name): value for name, value in run.metrics.items()} for run in study.runs]
        runs = tuple(replace(run, metrics=m, config={}) for run, m in zip(study.runs, renamed, strict=True))
        return declare(replace(study, runs=runs), Options(study=plain)).metric

    assert decided_by({}) == "final/accuracy"
    assert decided_by({"final/accuracy": "final/avg_reward"}) == "final/avg_reward"


def test_an_answer_may_hold_any_sign_that_looks_like_the_end_of_a_line(tmp_path):
    answer = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\rh\nend"
    (tmp_path / "eval.jsonl").write_text(2 * (json.dumps({"response": answer}, ensure_ascii=False) + "\n"))
    assert read_lines(tmp_path / "eval.jsonl", []) == 2 * [{"response": answer}]
