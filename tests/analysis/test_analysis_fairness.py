"""Fairness checks: each check fails on unequal conditions, and analysis.allow permits the difference."""

import pytest
from synthetic import Fake, config_of, two_by_three

from analysis.study.load import load_study
from analysis.validity.fairness import check_fairness


def checks_of(studies, name, runs, allow=()):
    study = load_study(studies.write(name, runs), studies.output_dir)
    fairness = check_fairness(study, allow)
    return fairness, {check.name: check for check in fairness.checks}


def test_a_fair_study(studies):
    fairness, checks = checks_of(studies, "fair", two_by_three())
    assert fairness.ok
    assert {check.outcome for check in checks.values()} == {"ok"}
    assert {difference.key for difference in fairness.differences} == {
        "algo.name",
        "algo.gae_lambda",
        "algo.group_size",
        "method",
    }
    assert "sft-3f9ac41e0001 in all 6 runs" in checks["Same SFT start"].evidence


BUDGET = {"prompts": 160, "completions": 1280, "tokens": 8_200_000, "optimizer_steps": 160, "seconds": 500.0}


@pytest.mark.parametrize(
    ("change", "check", "permit"),
    [
        ({"artifacts": {"sft": "sft-other"}}, "Same SFT start", "sft"),
        ({"data": {"train": {"sha256": "x"}}}, "Same training, validation and test data", "data"),
        ({"prompt_order": "x"}, "Same training prompts in the same order for each seed", "prompt_order"),
        ({"reward": {"name": "exact_match", "sha256": "x"}}, "Same reward function", "reward"),
        ({"ledger": {**BUDGET, "completions": 1}}, "Same number of responses", "ledger.completions"),
        ({"ledger": {**BUDGET, "optimizer_steps": 1}}, "Same number of optimizer steps", "ledger.optimizer_steps"),
    ],
)
def test_unequal_conditions_fail_unless_allowed(studies, change, check, permit):
    runs = two_by_three()
    runs[4].manifest = change
    fairness, checks = checks_of(studies, f"unequal-{permit}", runs)
    assert checks[check].outcome == "failed"
    assert "grpo seed 123" in checks[check].evidence or "seed 123" in checks[check].evidence
    assert not fairness.ok
    study = load_study(f"unequal-{permit}", studies.output_dir)
    assert check_fairness(study, (permit,)).ok


def test_config_outside_the_method_must_be_allowed(studies):
    runs = two_by_three()
    for run in runs[3:]:
        run.config = {"rl": {"rollouts_per_step": 128, "steps": 20}}
    fairness, checks = checks_of(studies, "config", runs)
    assert checks["Same configuration apart from the method"].outcome == "failed"
    assert "rl.rollouts_per_step" in fairness.violations[0]
    study = load_study("config", studies.output_dir)
    assert check_fairness(study, ("rl.rollouts_per_step",)).ok
    assert check_fairness(study, ("rl",)).ok


def test_seeds_of_one_method_must_share_their_settings(studies):
    runs = two_by_three()
    runs[4].config = {"algo": {**config_of(runs[4])["algo"], "lr": 1e-3}}
    fairness, _ = checks_of(studies, "mixed", runs)
    assert any("algo.lr" in violation for violation in fairness.violations)


def test_seed_and_paths_may_differ(studies):
    runs = two_by_three()
    runs[4].config = {"output_dir": "elsewhere", "tracking": {"uri": "sqlite:///x"}}
    assert checks_of(studies, "paths", runs)[0].ok


def test_identical_seeds_fail(studies):
    runs = two_by_three()
    runs[4] = SameSeed("grpo", 123, 0.645)
    _, checks = checks_of(studies, "same-seeds", runs)
    assert checks["Seeds make a difference"].outcome == "failed"
    assert "seed is probably not applied" in checks["Seeds make a difference"].evidence


def test_identical_final_metrics_fail_even_if_the_curves_differ(studies):
    """As when the wrong weights are evaluated at the end."""
    study = load_study(studies.write("measured-twice", two_by_three()), studies.output_dir)
    finals = {name: value for name, value in study.runs[0].metrics.items() if name.startswith("final/")}
    study.runs[4].metrics.update(finals)
    checks = {check.name: check for check in check_fairness(study, ()).checks}
    assert checks["Methods make a difference"].outcome == "failed"
    assert "identical final numbers in ppo seed 42 and grpo seed 123" in checks["Methods make a difference"].evidence
    assert checks["Seeds make a difference"].outcome == "ok"


class SameSeed(Fake):
    """A run with the results of seed 42."""

    def rng(self, name):
        return Fake("grpo", 42, 0.645).rng(name)


class SameMethod(Fake):
    """A run with the results of PPO."""

    def rng(self, name):
        return Fake("ppo", self.seed, self.accuracy).rng(name)


def test_identical_methods_fail(studies, monkeypatch):
    import synthetic

    runs = two_by_three()
    original = synthetic.curves
    monkeypatch.setattr(
        synthetic, "curves", lambda fake: original(Fake("ppo", fake.seed, fake.accuracy) if "c" in fake.model else fake)
    )
    copies = [SameMethod("grpo", run.seed, run.accuracy, model="copy") for run in runs[:3]]
    _, checks = checks_of(studies, "copies", [*runs[:3], *copies])
    assert checks["Methods make a difference"].outcome == "failed"


def test_unequal_tokens_devices_and_dirty_trees_are_warnings(studies):
    runs = two_by_three()
    runs[4].manifest = {
        "ledger": {**BUDGET, "tokens": 10_000_000},
        "device": "cuda",
        "git": {"commit": "a" * 40, "dirty": True},
    }
    fairness, checks = checks_of(studies, "warned", runs)
    assert fairness.ok
    for name in ("Same number of generated tokens", "Same kind of device", "Clean working tree"):
        assert checks[name].outcome == "warning"
    assert "22.0%" in checks["Same number of generated tokens"].evidence


def test_software_confounded_with_the_method_fails_and_mixed_software_warns(studies):
    versions = {"versions": {"torch": "9.9"}}
    runs = two_by_three()
    for run in runs[3:]:
        run.manifest = versions
    assert checks_of(studies, "confounded", runs)[1]["Same software"].outcome == "failed"
    runs = two_by_three()
    runs[4].manifest = versions
    assert checks_of(studies, "mixture", runs)[1]["Same software"].outcome == "warning"


def test_unrecorded_conditions_are_unknown(studies):
    runs = two_by_three()
    runs[0].manifest = {"artifacts": {}, "data": {}, "prompt_order": None, "reward": None, "ledger": None, "git": None}
    fairness, checks = checks_of(studies, "silent", runs)
    assert fairness.ok
    assert fairness.count("unknown") == 8
    assert "not recorded by ppo seed 42" in checks["Same SFT start"].evidence


def test_budget_of_the_methods(studies):
    fairness, _ = checks_of(studies, "budget", two_by_three())
    rows = {row.quantity: row for row in fairness.ledger}
    assert rows["Responses generated"].totals == {"ppo": "3,840", "grpo": "3,840"}
    assert rows["Responses generated"].matched == "yes, exactly"
    assert rows["Prompts seen"].ok is None
    assert rows["Wall-clock time, s"].matched == "measured, not matched"
    assert float(rows["Peak memory of a run, GiB"].totals["ppo"]) == pytest.approx(2.4, abs=0.02)
    assert "Price, $" not in rows
    priced = {row.quantity: row for row in check_fairness(load_study("budget", studies.output_dir), (), 36.0).ledger}
    seconds = float(rows["Wall-clock time, s"].totals["ppo"].replace(",", ""))
    assert float(priced["Price, $"].totals["ppo"]) == pytest.approx(seconds / 100, abs=0.05), (
        "36 dollars per hour are a cent per second"
    )


def test_missing_seeds_are_named(studies):
    _, checks = checks_of(studies, "ragged", two_by_three()[:5])
    assert checks["Same seeds in every method"].evidence == "grpo lacks 777"
