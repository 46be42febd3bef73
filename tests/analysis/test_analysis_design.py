"""Paired seeds and crossed prompts: what the report shows of the design."""

import json

import numpy as np
import pytest
from synthetic import GRPO, PPO, SEEDS, Fake, four_by_five, two_by_three

from analysis import statistics
from analysis.comparison.paired_design import resolve_pairing
from analysis.comparison.variance import compute_variance_by_prompt, format_advice, format_spreads
from analysis.findings import find
from analysis.report.write import write_report
from analysis.study.load import load_study
from analysis.study.metrics import metric_named
from analysis.study.options import Options
from analysis.validity.scope import format_pairing_note, prompt_warnings

DECLARED = {"metric": "final/accuracy", "baseline": "ppo", "margin": 0.01, "pairing": "seed", "allow": []}


def findings_of(studies, name, runs):
    return find(Options(study=studies.write(name, runs), output_dir=studies.output_dir))


def table_of(study, method):
    return np.array([[float(row["correct"]) for row in run.answers] for run in study.runs_of(method)])


@pytest.fixture(scope="module")
def paired(studies):
    return findings_of(studies, "paired", two_by_three(config={"analysis": DECLARED}))


@pytest.fixture(scope="module")
def plain(studies):
    return findings_of(studies, "by-prompt", two_by_three())


def test_declared_pairing_decides_by_the_paired_interval(paired):
    """Seeds in order 42, 123, 777: differences 0.021, -0.026, 0.017 have mean 0.004."""
    assert paired.pairing.by_seed
    pair = paired.pairs[0]
    expected = statistics.paired(GRPO, PPO)
    assert pair.difference == expected.difference
    assert pair.difference.value == pytest.approx(0.004)
    assert pair.permutation.smallest == 0.25
    assert pair.cohens_d == expected.d_av
    assert pair.cohens_d.value == pytest.approx(statistics.cohens_d(GRPO, PPO).value)
    assert pair.detectable == pytest.approx(statistics.minimum_detectable_d_z(3) * expected.sd)
    assert pair.seeds_needed_for(0.8 * expected.sd) == 15
    assert all(other.paired for other in paired.exploratory)


def test_report_of_paired_seeds(paired):
    page = write_report(paired)
    html, report = page.read_text(), json.loads(page.with_name("report.json").read_text())
    assert "Seeds are paired, as declared" in html
    assert "Paired t = " in html
    assert report["pairing"] == {"by_seed": True, "refused": None}
    assert report["comparisons"][0]["paired"]["d_z"]["ci95"][0] < 0
    assert "d_z = " in format_pairing_note(paired.pairing, paired.pairs)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"artifacts": {"sft": "sft-other"}}, "seed 123 started from different SFT models"),
        ({"artifacts": {}}, "do not record the SFT model of the runs of seed 123"),
        ({"prompt_order": "x"}, "used the prompts of seed 123 in different orders"),
        ({"prompt_order": None}, "do not record the prompt order of seed 123"),
    ],
)
def test_pairing_requires_matching_manifests(studies, change, why):
    runs = two_by_three(config={"analysis": DECLARED})
    runs[4].manifest = change
    name = f"refused-{abs(hash(why))}"
    pairing = resolve_pairing(load_study(studies.write(name, runs), studies.output_dir), "seed")
    assert not pairing.by_seed
    assert why in pairing.refusal


def test_impossible_pairing_is_reported_and_groups_are_compared(studies):
    runs = [*two_by_three(config={"analysis": DECLARED}), Fake("ppo", 1001, 0.63, config={"analysis": DECLARED})]
    findings = findings_of(studies, "partnerless", runs)
    assert findings.pairing.refusal == "not every seed exists in every method (ppo 1001)"
    assert findings.pairs[0].paired is None
    assert any("analysis.pairing=seed is not possible" in c.text for c in findings.warnings)


def test_seeds_are_not_paired_without_a_declaration(plain):
    assert not plain.pairing.declared
    assert plain.pairs[0].paired is None
    assert plain.pairs[0].difference == plain.pairs[0].welch.difference


def test_prompts_are_crossed_with_seeds(plain):
    row = plain.by_prompt[0]
    x, y = table_of(plain.study, "grpo"), table_of(plain.study, "ppo")
    assert row.prompts == 200
    assert row.crossed == statistics.crossed(x, y)
    assert row.mcnemar is None
    assert row.crossed.new_prompts.value == pytest.approx(x.mean() - y.mean())


def test_the_advice_names_the_larger_source_of_variance(plain):
    row = plain.by_prompt[0]
    budget = row.crossed.budget
    text = format_advice(plain.by_prompt)
    assert text.startswith("More seeds:" if budget.larger_source == "seeds" else "More prompts:")
    assert f"{100 * budget.error():.1f} points" in text
    assert f"with twice the seeds it would be {100 * budget.error(times_seeds=2):.1f}" in text
    assert f"{100 * budget.rest_sd:.1f} residual" in format_spreads(row)


def test_report_of_variance_components(plain):
    page = write_report(plain)
    html, row = page.read_text(), json.loads(page.with_name("report.json").read_text())["by_prompt"][0]
    assert "More seeds or more prompts?" in html
    assert "new seeds, these 200 prompts (decides)" in html
    assert "## More seeds or more prompts?" in page.with_name("report.md").read_text()
    assert sum(row["variance"].values()) == pytest.approx(1)
    assert row["new_seeds_and_prompts"]["ci95"][0] < row["new_prompts"]["estimate"]
    assert any(warning.brief.startswith("with new prompts: ") for warning in plain.warnings)


def test_a_verdict_that_does_not_generalize_to_new_prompts_is_warned_of(studies):
    """Three seeds that agree to a tenth of a point, on 200 prompts that alone are good for seven."""
    runs = two_by_three()
    for run, score in zip(runs, (0.60, 0.601, 0.602, 0.65, 0.651, 0.652), strict=True):
        run.accuracy = score
    findings = findings_of(studies, "few-prompts", runs)
    assert findings.verdict.state == "better"
    (warning,) = prompt_warnings(findings.by_prompt)
    assert "includes zero: the verdict holds for these prompts only" in warning.text


def test_two_models_on_the_same_prompts(studies):
    findings = findings_of(studies, "one-seed", [Fake("ppo", 42, 0.62), Fake("grpo", 42, 0.64)])
    row = findings.by_prompt[0]
    x, y = table_of(findings.study, "grpo"), table_of(findings.study, "ppo")
    assert (row.mcnemar.only_first, row.mcnemar.only_second) == ((x > y).sum(), (x < y).sum())
    html = write_report(findings).read_text()
    assert f"Of 200 prompts {row.mcnemar.only_first} are correct with GRPO only" in html
    assert "not the methods" in html


def test_every_comparison_of_many_methods_has_a_row(studies):
    findings = findings_of(studies, "four-by-prompt", four_by_five())
    assert len(findings.by_prompt) == 6
    assert write_report(findings).read_text().count("new seeds and new prompts</th>") == 1
    assert " (" in format_advice(findings.by_prompt).split(":")[1]


@pytest.mark.parametrize(
    ("metric", "drop", "why"),
    [
        ("final/kl", False, "KL from the SFT model is not a mean over prompts"),
        ("final/gold", False, "eval.jsonl lacks the gold reward of some answers"),
        ("final/accuracy", True, "the finished runs were evaluated on different prompts"),
    ],
)
def test_missing_values_have_a_reason(studies, plain, metric, drop, why):
    study = plain.study
    if drop:
        object.__setattr__(study.runs[0], "answers", study.runs[0].answers[1:])
    rows, reason = compute_variance_by_prompt(study, metric_named(metric), plain.pairs)
    assert (rows, reason) == ((), why)


def test_pairing_does_not_depend_on_the_order_of_runs(studies, paired):
    runs = two_by_three(config={"analysis": DECLARED})
    findings = findings_of(studies, "shuffled", [runs[i] for i in (2, 0, 1, 4, 5, 3)])
    assert findings.study.seeds == [SEEDS[2], SEEDS[0], SEEDS[1]]
    assert findings.pairs[0].difference == paired.pairs[0].difference
