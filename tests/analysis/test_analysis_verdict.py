"""Verdict: state and sentence for every kind of result."""

from math import nan

import pytest

from analysis.comparison.compare import compare_methods
from analysis.comparison.verdict import comparison_state, decide, winners
from analysis.statistics import Estimate
from analysis.study.metrics import metric_named

ACCURACY, KL = metric_named("final/accuracy"), metric_named("final/kl")
PPO, GRPO = (0.624, 0.641, 0.610), (0.645, 0.615, 0.627)


def verdict_of(scores, metric=ACCURACY, margin=None, unfinished=(), violations=(), planned=None):
    methods = list(scores)
    comparisons = compare_methods(metric, scores, methods, margin)
    return decide(
        metric=metric,
        methods=methods,
        comparisons=comparisons,
        level=Estimate(value=0.625, low=0.586, high=0.664),
        planned=planned or sum(map(len, scores.values())),
        unfinished=unfinished,
        violations=violations,
    )


def test_inconclusive_says_what_the_design_can_detect():
    verdict = verdict_of({"ppo": PPO, "grpo": GRPO})
    assert verdict.state == "inconclusive"
    assert verdict.sentence == (
        "Inconclusive: GRPO \u2212 PPO = +0.4 points (95% CI \u22123.1 to +3.9), 3 vs 3 seeds; "
        "this design can only detect d \u2265 3.07."
    )
    assert verdict.exit_code == 0


@pytest.mark.parametrize(("shift", "state"), [(0.2, "better"), (-0.2, "worse")])
def test_better_and_worse_are_about_the_treatment(shift, state):
    verdict = verdict_of({"ppo": PPO, "grpo": tuple(score + shift for score in GRPO)})
    assert verdict.state == state
    assert verdict.sentence.startswith(f"GRPO is {state} than PPO:")


def test_lower_is_better_reverses_the_verdict():
    assert verdict_of({"ppo": (5.0, 5.1, 4.9), "grpo": (3.0, 3.1, 2.9)}, metric=KL).state == "better"
    assert verdict_of({"ppo": (3.0, 3.1, 2.9), "grpo": (5.0, 5.1, 4.9)}, metric=KL).state == "worse"


def test_equivalent_only_within_a_declared_margin():
    close = {"ppo": (0.600, 0.601, 0.599), "grpo": (0.6005, 0.6012, 0.5990)}
    assert verdict_of(close).state == "inconclusive"
    verdict = verdict_of(close, margin=0.02)
    assert verdict.state == "equivalent"
    assert "within 2.0 points" in verdict.sentence
    assert verdict_of(close, margin=0.0005).state == "inconclusive"


def test_a_significant_difference_within_the_margin_is_better_and_marked_as_small():
    verdict = verdict_of({"ppo": (0.600, 0.601, 0.599), "grpo": (0.606, 0.607, 0.605)}, margin=0.02)
    assert verdict.state == "better"
    assert "within the declared margin" in verdict.sentence


def test_inconclusive_does_not_claim_equality():
    sentence = verdict_of({"ppo": PPO, "grpo": GRPO}).sentence.lower()
    assert not any(word in sentence for word in ("equal", "same", "similar", "no difference"))


@pytest.mark.parametrize(
    ("grpo", "words"), [((0.7, 0.7, 0.7), "identical across seeds"), ((0.7,), "fewer than 2 seeds")]
)
def test_a_missing_interval_has_a_reason(grpo, words):
    verdict = verdict_of({"ppo": (0.7, 0.7, 0.7), "grpo": grpo})
    assert verdict.state == "inconclusive"
    assert words in verdict.sentence


def test_nan_gives_no_estimate():
    verdict = verdict_of({"ppo": PPO, "grpo": (0.6, nan, 0.7)})
    assert verdict.state == "inconclusive"
    assert "n/a" in verdict.sentence
    assert "nan" not in verdict.sentence


def test_a_missing_run_makes_the_study_incomplete():
    verdict = verdict_of({"ppo": PPO, "grpo": GRPO[:2]}, unfinished=["GRPO seed 777 failed: loss."], planned=6)
    assert verdict.state == "incomplete"
    assert verdict.exit_code == 3
    assert verdict.sentence == "No verdict: 5 of 6 planned runs finished. GRPO seed 777 failed: loss."


def test_a_failed_fairness_check_comes_first():
    verdict = verdict_of({"ppo": PPO, "grpo": GRPO}, violations=["Same data: differs", "x"], unfinished=["y"])
    assert verdict.state == "not_comparable"
    assert verdict.exit_code == 4
    assert verdict.sentence == "Not comparable: Same data: differs; 1 failed fairness checks more below."


def test_a_single_method_is_not_compared():
    verdict = verdict_of({"ppo": PPO})
    assert (verdict.state, verdict.exit_code) == ("single", 0)
    assert "62.5% (95% CI 58.6 to 66.4)" in verdict.sentence


FOUR = {
    "ppo": (0.624, 0.641, 0.610, 0.630, 0.619),
    "grpo": (0.645, 0.615, 0.627, 0.634, 0.618),
    "rloo": (0.663, 0.672, 0.656, 0.669, 0.652),
    "dr_grpo": (0.646, 0.622, 0.654, 0.633, 0.651),
}


def test_many_methods_name_winners_and_losers():
    verdict = verdict_of(FOUR)
    assert verdict.state == "better"
    assert verdict.sentence == (
        "RLOO beats PPO and GRPO: +3.8 points over PPO (+1.5 to +6.1) and +3.5 points over GRPO (+1.1 to +5.9), "
        "5 seeds each. The comparison is inconclusive for Dr. GRPO (+2.1, \u22120.5 to +4.7)."
    )


def test_sentence_interval_and_state_agree_for_every_pair():
    pairs = compare_methods(ACCURACY, FOUR, list(FOUR))
    beaten = winners(list(FOUR), pairs)
    assert beaten == {"rloo": ["ppo", "grpo"]}
    for pair in pairs:
        apart = pair.difference.low > 0 or pair.difference.high < 0
        assert (comparison_state(pair) in ("better", "worse")) == apart


def test_many_methods_get_simultaneous_intervals():
    alone = compare_methods(ACCURACY, {name: FOUR[name] for name in ("ppo", "rloo")}, ["ppo", "rloo"])[0]
    among = next(pair for pair in compare_methods(ACCURACY, FOUR, list(FOUR)) if pair.treatment == "rloo")
    assert among.difference.value == alone.difference.value
    assert among.difference.low < alone.difference.low
    assert among.detectable_d > alone.detectable_d
    assert among.p_holm > among.welch.p


def test_many_methods_without_a_significant_difference():
    near = {name: tuple(score + 0.001 * place for score in PPO) for place, name in enumerate("abc")}
    verdict = verdict_of(near)
    assert verdict.state == "inconclusive"
    assert "no interval of 3 comparisons excludes zero" in verdict.sentence


def test_baseline_that_beats_all_is_worse_for_the_treatments():
    ahead = {"ppo": (0.9, 0.91, 0.89), "a": (0.5, 0.51, 0.49), "b": (0.5, 0.505, 0.49)}
    verdict = verdict_of(ahead)
    assert verdict.state == "worse"
    assert verdict.sentence.startswith("PPO beats A and B:")
