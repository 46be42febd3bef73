"""What the report shows of preference runs: proxy and gold, degenerate answers, the reward model, strata and phases."""

import json

import pytest
from preferences import REWARD_MODEL, as_it_should_be, preference_run, pushed_too_far
from synthetic import SEEDS, two_by_three

from analysis.comparison.strata import group_by_metric
from analysis.findings import find
from analysis.plots.overoptimization import tick_marks
from analysis.report.terminal import summary_lines
from analysis.report.write import write_report
from analysis.study.options import Options


def built(studies, name, runs):
    studies.write(name, runs)
    findings = find(Options(study=name, output_dir=studies.output_dir))
    page = write_report(findings)
    return findings, page.read_text(), page.with_name("report.md").read_text(), page.parent


@pytest.fixture(scope="module")
def far(studies):
    return built(studies, "preferences-far", pushed_too_far())


@pytest.fixture(scope="module")
def fine(studies):
    return built(studies, "preferences-fine", as_it_should_be())


@pytest.fixture(scope="module")
def arithmetic(studies):
    return built(studies, "preferences-none", two_by_three())


def test_the_report_says_who_over_optimized(far):
    findings, html, text, home = far
    for one in findings.over_optimization:
        assert one.state == "over-optimized"
    sentence = (
        "GRPO over-optimized the reward: gold peaked at 0.90 (step 10, KL 8.00) and ended at \u22121.06, while the "
        "proxy rose from 2.90 to 4.80. The fall of 1.96 (95% CI 1.18 to 2.74) occurs on 3 of 3 seeds."
    )
    assert sentence in html.split('id="proxy"')[1].split("</section>")[0]
    assert sentence in html.split('id="warnings"')[1].split("</section>")[0]
    assert f"\n{sentence}\n" in text
    told = json.loads((home / "report.json").read_text())["over_optimization"]
    assert [(one["method"], one["state"]) for one in told] == [("ppo", "over-optimized"), ("grpo", "over-optimized")]
    assert told[1]["sentence"] == sentence
    assert told[1]["peak"] == {"step": 10, "gold": pytest.approx(0.9), "proxy": pytest.approx(2.9), "kl": 8.0}


def test_proxy_and_gold_are_drawn_for_each_method(far):
    _, html, _, home = far
    for place, numbers in enumerate(("KL 4.50, proxy 2.80, gold 0.50", "KL 8.00, proxy 2.90, gold 0.90")):
        drawing = (home / "figures" / f"proxy-{place}.svg").read_text()
        assert "proxy reward, trained on" in drawing
        assert "gold reward, true quality" in drawing
        assert numbers in drawing
    assert 'href="#proxy"' in html


def test_the_default_headline_is_gold_then_accuracy_then_reward(far, arithmetic, studies):
    assert far[0].declared.metric == "final/gold"
    plain = as_it_should_be()
    for run in plain:
        run.drop = (*run.drop, "gold")
    assert built(studies, "preferences-no-gold", plain)[0].declared.metric == "final/avg_reward"
    runs = two_by_three()
    for run in runs:
        run.config["analysis"] = {}
    assert built(studies, "preferences-accuracy", runs)[0].declared.metric == "final/accuracy"


def test_degenerate_answers_are_named_with_their_rate(far, fine):
    findings, html, text, home = far
    words = "97% of PPO's answers are empty at the end (97%, 98% and 96% by seed; 0% before RL)."
    assert words in [warning.text for warning in findings.warnings]
    assert "| empty answers | 0.0% \u2192 97.0% | 0.0% \u2192 0.0% |" in text
    assert "<td>0.0% \u2192 97.0%</td>" in html
    assert "| answer length, tokens | 12.0 \u2192 18.0 | 12.0 \u2192 18.0 |" in text
    answers = json.loads((home / "report.json").read_text())["answers"]
    assert answers["final/empty_fraction"]["end"]["ppo"] == pytest.approx(0.97)
    assert any("97% of PPO's answers empty" in line for line in summary_lines(findings, home / "report.html", False))
    assert not [warning for warning in fine[0].warnings if "empty" in warning.text or "repetitive" in warning.text]


def test_repetitive_answers_are_named_too(studies):
    runs = as_it_should_be()
    for run in runs[:3]:
        run.more[20]["final/repeated_fraction"] = 0.4
    findings = built(studies, "preferences-repeated", runs)[0]
    assert "40% of PPO's answers are repetitive at the end (40%, 40% and 40% by seed; 0% before RL)." in [
        warning.text for warning in findings.warnings
    ]


def test_repetition_that_was_there_before_is_only_a_note(studies):
    runs = as_it_should_be()
    for run in runs[:3]:
        run.more[20] |= {"final/repeated_fraction": 0.13, "final/start_repeated_fraction": 0.17}
    (told,) = [c for c in built(studies, "preferences-less-repeated", runs)[0].warnings if "repetitive" in c.text]
    assert told.level == "note"
    assert told.text == "13% of PPO's answers are repetitive at the end (13%, 13% and 13% by seed; 17% before RL)."


def test_more_reward_without_quality_is_inflation(far, fine):
    texts = [warning.text for warning in far[0].warnings]
    inflated = [
        text for text in texts if text.startswith("Reward inflation: GRPO increased its training reward by +3.800")
    ]
    assert len(inflated) == 1
    assert "while gold reward changed by \u22120.06 (95% CI" in inflated[0]
    assert not [warning for warning in fine[0].warnings if "inflation" in warning.text]


def longer(runs, tokens, *, drop=()):
    for run in runs:
        run.more[20]["final/avg_response_length"] = tokens
        run.drop = (*run.drop, *drop)
    return runs


def test_twice_the_length_at_equal_quality_is_verbosity(studies):
    flat = [preference_run(m, s, -1.0, -1.0 + 0.02 * (s % 5 - 2)) for m in ("ppo", "grpo") for s in SEEDS[:3]]
    texts = [c.text for c in built(studies, "preferences-verbose", longer(flat, 30.0))[0].warnings]
    verbose = [text for text in texts if text.startswith("Verbosity: ")]
    assert len(verbose) == 2
    assert (
        "PPO's answers are 2.5 times as long as before RL (12 to 30 tokens) and not significantly better" in verbose[0]
    )
    better = built(studies, "preferences-longer", longer(as_it_should_be(), 30.0))[0]
    assert not [c for c in better.warnings if "times as long" in c.text]
    blind = built(studies, "preferences-blind", longer(as_it_should_be(), 30.0, drop=("gold",)))[0]
    notes = [c for c in blind.warnings if "times as long" in c.text]
    assert [c.level for c in notes] == ["note", "note"]
    assert "no measure other than the reward shows whether they are better" in notes[0].text


def test_the_reward_model_is_shown_with_intervals(far):
    findings, html, text, home = far
    (model,) = findings.reward_models
    assert model.key == "reward_model-77aa00bb11cc"
    assert len(model.runs) == 6
    # Wilson of 1736 of 2000: centre (0.868 + 1.92073 / 2000) / (1 + 3.84146 / 2000) = 0.86730, half width 0.01484
    assert (model.accuracy.low, model.accuracy.high) == pytest.approx((0.85245, 0.88213), abs=1e-4)
    assert "It ranks 86.8% (85.2 to 88.2) of 2,000 held-out pairs as labelled." in html
    assert "Expected calibration error: 1.8 points, after dividing the scores by 1.08." in html
    assert [row.label for row in model.by_margin] == ["0 to 0.5", "0.5 to 1", "1 to 2", "2 or more"]
    assert [row.label for row in model.by_length] == ["shorter", "as long", "longer"]
    gates = "at least 70.0% accuracy, reached 87.2%; at most 0.100 expected calibration error, reached 0.021."
    assert f"Gates on validation pairs: {gates}" in html
    assert gates in text
    # margin 1 or more: (0.916 * 700 + 0.989 * 400) / 1100
    assert model.accuracy_from_margin(1.0).value == pytest.approx(0.94255, abs=1e-5)
    assert "| 2 or more | 400 | 98.9% (97.3 to 99.6) | 98.9% (97.3 to 99.6) |" in text
    assert "| 1 to 2 | 700 | 91.6% (89.3 to 93.4) | 94.3% (92.7 to 95.5) |" in text
    for name in ("margin", "length"):
        assert "accuracy (%)" in (home / "figures" / f"pairs-{name}-0.svg").read_text()
    told = json.loads((home / "report.json").read_text())["reward_models"][0]
    last = told["by_margin"][3]
    assert (last["from"], last["to"], last["pairs"]) == (2.0, None, 400)
    assert last["accuracy"]["estimate"] == pytest.approx(0.989)
    assert told["ece"] == 0.018


def test_one_frozen_reward_model_is_a_condition(far, arithmetic):
    evidence = {check.name: (check.outcome, check.evidence) for check in far[0].fairness.checks}
    assert evidence["Same frozen reward model"] == ("ok", "reward_model-77aa00bb11cc in all 6 runs")
    assert "Same frozen reward model" not in {check.name for check in arithmetic[0].fairness.checks}


def test_two_reward_models_are_both_shown(studies):
    runs = as_it_should_be()
    runs[0].manifest["artifacts"] = {"sft": "sft-3f9ac41e0001", "reward_model": "reward_model-other"}
    runs[0].manifest["reward_model"] = {
        "accuracy": 0.65, "pairs": 100, "validation_accuracy": 0.66, "accuracy_by_length": [[-9, 3, 0.65, 100]]
    }  # fmt: skip
    findings, html, _, _ = built(studies, "preferences-two-models", runs)
    assert [model.key for model in findings.reward_models] == ["reward_model-other", "reward_model-77aa00bb11cc"]
    assert "<code>reward_model-other</code> (ppo seed 42): It ranks 65.0%" in html
    assert "at least 70.0% accuracy, missed with 66.0%." in html
    assert findings.verdict.state == "not_comparable"
    assert any(
        text.startswith("Same frozen reward model: reward_model-other in ppo seed 42")
        for text in findings.fairness.violations
    )
    assert findings.reward_models[0].by_length[0].label == "\u22129 to 3"


def test_what_each_phase_cost_stands_beside_what_was_expected(far):
    findings, html, text, _ = far
    assert [cost.label for cost in findings.stage_costs] == [
        "SFT",
        "Reward model",
        "RL, PPO",
        "Final evaluation, PPO",
        "RL, GRPO",
        "Final evaluation, GRPO",
    ]
    assert "| Final evaluation, PPO, mean of a run | 6.50 |  |  |  |" in text
    assert "| SFT, once for all runs | 31.5 | 96,000 | 0.500 |  |" in text
    # 2.4 GiB is 2.577 GB, 1.56 GiB is 1.675 GB
    assert "2.57 GB measured, 2 to 2.5 GB expected: 3% more" in html
    assert "1.67 GB measured, 1 GB expected: 67% more" in html


def test_memory_within_and_below_the_expectation(studies):
    runs = as_it_should_be()
    for run in runs:
        run.config["analysis"]["expected_memory_gb"] = {"ppo": [2, 3], "grpo": [2, 3]}
    verdicts = [cost.verdict for cost in built(studies, "preferences-memory", runs)[0].stage_costs]
    assert verdicts == ["", "", "as expected", "", "16% less", ""]


def test_strata_have_a_table_and_stay_out_of_the_forest(far):
    findings, html, text, _ = far
    assert {pair.metric.name for pair in findings.exploratory}.isdisjoint(row.metric.name for row in findings.strata)
    assert not [pair for pair in findings.exploratory if "stratum" in pair.metric.name]
    assert "2 strata: places and tools and toys." in html
    assert [(label, [row.name for row in rows]) for label, rows in group_by_metric(findings.strata)] == [
        ("gold reward", ["places", "tools and toys"]),
        ("reward", ["places", "tools and toys"]),
    ]
    assert "| tools and toys | \u22122.15 | \u22121.26 | +0.89 (+0.04 to +1.74) |" in text


def test_a_study_without_preferences_speaks_of_none(arithmetic):
    findings, html, text, home = arithmetic
    assert (findings.over_optimization, findings.reward_models, findings.strata) == ((), (), ())
    for word in ('id="proxy"', 'id="rewardmodel"', 'id="strata"', 'href="#proxy"', "gold"):
        assert word not in html
    for word in ("Proxy", "Reward model", "stratum"):
        assert word not in text
    assert not list((home / "figures").glob("proxy*"))
    assert [cost.label for cost in findings.stage_costs] == ["RL, PPO", "RL, GRPO"]


def test_without_kl_the_words_remain(studies):
    runs = pushed_too_far()
    for run in runs:
        run.drop = (*run.drop, "eval/kl")
        run.manifest["reward_model"] = {name: REWARD_MODEL[name] for name in ("accuracy", "pairs")}
    findings, html, _, home = built(studies, "preferences-no-kl", runs)
    assert "gold peaked at 0.90 (step 10) and ended at" in html
    assert "n/a: KL was not measured along the way." in html
    assert "n/a: its accuracy was not broken down." in html
    assert not list((home / "figures").glob("proxy*"))
    assert findings.over_optimization[0].peak.kl is None


def test_samples_are_the_first_the_best_and_the_worst_by_gold(far):
    rules = [(sample.rule.split(" (")[0], sample.prompt_id) for sample in far[0].samples.picked]
    assert rules == [
        ("first prompt of the held-out set", "test-0000"),
        ("prompt with the highest mean gold", "test-0002"),
    ]
    assert "reward 4.60, gold \u22122.05" in far[1]


def test_every_item_and_row_of_the_text_has_a_line_of_its_own(far, arithmetic):
    for _, _, text, _ in (far, arithmetic):
        lines = text.split("\n")
        assert not [line for line in lines if "||" in line or ".- " in line or ")- " in line]
        tables = [place for place, line in enumerate(lines) if line.startswith("|---")]
        assert len(tables) >= 5
        for place in tables:
            assert lines[place - 2] == "", lines[place - 1]
            assert lines[place].count("|") == lines[place - 1].count("|") == lines[place + 1].count("|")


def test_weights_that_are_not_the_last_ones_are_told_of(studies):
    runs = as_it_should_be()
    runs[0].manifest["selected_step"], runs[1].manifest["selected_step"] = 14, 20
    _, html, text, _ = built(studies, "preferences-selected", runs)
    assert text.count("weights of step 14, of 20") == 1
    assert "weights of step 20" not in html


def test_four_methods_with_five_seeds(studies):
    runs = [
        preference_run(method, seed, 0.9, end + 0.05 * (seed % 4), kl=kl)
        for method, end, kl in (("ppo", 0.9, 4.0), ("grpo", -1.0, 30.0), ("rloo", 0.3, 12.0), ("dr_grpo", 0.85, 9.0))
        for seed in SEEDS
    ]
    findings, html, text, home = built(studies, "preferences-four", runs)
    states = {finding.method: finding.state for finding in findings.over_optimization}
    assert states["grpo"] == "over-optimized"
    assert states["ppo"] in ("best at the end", "no clear fall")
    assert len(list((home / "figures").glob("proxy-*.svg"))) == 4
    assert "Dr. GRPO" in html.split('id="proxy"')[1].split("</section>")[0]
    assert len(html.encode()) < 400_000


def test_ticks_of_a_root_axis():
    assert tick_marks(16.0) == [0.0, 0.2, 1, 2, 5, 10]
    assert tick_marks(0.05) == [0.0]
