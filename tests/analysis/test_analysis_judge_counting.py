"""Tallies of trials: a truth table of both orders, values computed by hand, and undefined estimates."""

from itertools import product

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from analysis.judge import winrate
from analysis.judge.tally import Trials, combine_orders, compute_tally, fit_ranking
from analysis.judge.trial import INVALID, LOSS, TIE, UNJUDGED, WIN
from validation.simulations.simulated_judge import JudgeModel, MethodPair, simulate

KINDS = {"w": WIN, "t": TIE, "l": LOSS, "i": INVALID, "u": UNJUDGED}


def make_trials(words: str, prompts=None, lengths=None, names=("grpo", "ppo")) -> Trials:
    """Trials from a text such as `wl tt`: results with the treatment presented first, and second."""
    results = np.array([[KINDS[letter] for letter in word] for word in words.split()], dtype=np.int8).reshape(-1, 2)
    n = len(results)
    return Trials(
        treatment=names[0],
        baseline=names[1],
        results=results,
        prompts=np.arange(n) if prompts is None else np.array(prompts),
        lengths=np.full((n, 2), 100.0) if lengths is None else np.array(lengths, float),
        identical=np.zeros(n, dtype=bool),
        truncated=np.zeros(n, dtype=bool),
        failures=tuple("refusal" if "i" in word else "" for word in words.split()),
    )


TRUTH = {
    "ww": WIN,
    "ll": LOSS,
    "tt": TIE,
    "wl": TIE,
    "lw": TIE,
    "wt": TIE,
    "tw": TIE,
    "lt": TIE,
    "tl": TIE,
    "wi": INVALID,
    "iw": INVALID,
    "ti": INVALID,
    "it": INVALID,
    "li": INVALID,
    "il": INVALID,
    "ii": INVALID,
    "wu": UNJUDGED,
    "uw": UNJUDGED,
    "tu": UNJUDGED,
    "ut": UNJUDGED,
    "lu": UNJUDGED,
    "ul": UNJUDGED,
    "uu": UNJUDGED,
    "iu": INVALID,
    "ui": INVALID,
}


def test_truth_table_of_both_orders():
    words = ["".join(pair) for pair in product("wtliu", repeat=2)]
    assert set(words) == set(TRUTH)
    assert dict(zip(words, combine_orders(make_trials(" ".join(words)).results).tolist(), strict=True)) == TRUTH


def test_a_small_table_by_hand():
    # 4 wins, 3 ties (first position won, second position won, tie in both orders), 2 losses
    found = compute_tally(make_trials("ww ww ww ww wl lw tt ll ll"))
    assert (found.win, found.tie, found.loss, found.invalid, found.unjudged) == (4, 3, 2, 0, 0)
    assert found.score.value == pytest.approx(5.5 / 9)
    low, high = sm.stats.proportion_confint(5.5, 9, method="wilson")
    assert (found.score.low, found.score.high) == pytest.approx((low, high))
    assert (found.favors_first, found.favors_second, found.order_p) == (1, 1, 1.0)
    assert found.shown_first.value == pytest.approx(5.5 / 9)  # 5 wins, a tie, 3 losses
    assert found.consistency.value == pytest.approx(7 / 9)
    assert found.sign_p == pytest.approx(stats.binomtest(4, 6).pvalue)
    assert found.mean_of_orders.value == found.score.value  # they differ only if the judge returns a tie in one order


def test_a_tie_in_one_order_counts_half_and_three_quarters_in_the_mean_of_orders():
    found = compute_tally(make_trials("wt tw ll tl"))
    assert (found.win, found.tie, found.loss) == (0, 3, 1)
    assert found.score.value == pytest.approx(1.5 / 4)
    assert found.mean_of_orders.value == pytest.approx((0.75 + 0.75 + 0 + 0.25) / 4)
    assert found.shown_first.value == pytest.approx((1 + 0.5 + 0 + 0.5) / 4)
    assert found.shown_second.value == pytest.approx((0.5 + 1 + 0 + 0) / 4)


def test_invalid_pairs_give_bounds_and_too_many_withhold_the_score():
    few = compute_tally(make_trials(" ".join(["ww"] * 60 + ["ll"] * 37 + ["wi"] * 3)))
    assert (few.invalid, few.judged, few.failures) == (3, 97, {"refusal": 3})
    assert few.score.value == pytest.approx(60 / 97)
    assert few.bounds == pytest.approx((0.60, 0.63))
    many = compute_tally(make_trials(" ".join(["ww"] * 60 + ["ll"] * 34 + ["ii"] * 6)))
    assert (many.score.value, many.score.reason) == (None, "too_many_invalid")
    assert many.bounds == pytest.approx((0.60, 0.66))


def test_unjudged_pairs_are_not_ties():
    found = compute_tally(make_trials("ww uw uu ll"))
    assert (found.judged, found.unjudged, found.score.value) == (2, 2, 0.5)


def test_the_interval_is_clustered_by_prompt():
    # 40 prompts with 3 seeds that agree: the standard error is that of 40 values, not of 120
    words = " ".join(["ww"] * 75 + ["ll"] * 45)
    found = compute_tally(make_trials(words, prompts=np.repeat(np.arange(40), 3)))
    values = np.repeat([1.0] * 25 + [0.0] * 15, 3)
    fit = sm.OLS(values, np.ones(120)).fit(
        cov_type="cluster", cov_kwds={"groups": np.repeat(np.arange(40), 3), "use_correction": False}
    )
    half = stats.t.ppf(0.975, 39) * fit.bse[0] * np.sqrt(40 / 39)
    assert (found.score.low, found.score.high) == pytest.approx((0.625 - half, 0.625 + half))
    assert found.sign_p == pytest.approx(stats.binomtest(25, 40).pvalue)  # prompts, not rows
    alone = compute_tally(make_trials(words))
    assert found.score.high - found.score.low > 1.6 * (alone.score.high - alone.score.low)


def test_all_wins_have_an_interval_and_no_length_control():
    found = compute_tally(make_trials(" ".join(["ww"] * 50), lengths=[[100 + i, 100] for i in range(50)]))
    assert found.score.value == 1.0
    assert (found.score.low, found.score.high) == pytest.approx(sm.stats.proportion_confint(50, 50, method="wilson"))
    assert (found.length_controlled.value, found.length_controlled.reason) == (None, "all_the_same")
    assert found.order_p is None


def test_nothing_judged_has_no_estimate():
    found = compute_tally(make_trials("uu uu"))
    assert (found.score.value, found.score.reason) == (None, "nothing_judged")
    assert found.bounds is None
    assert found.mean_chars is None
    assert found.sign_p is None
    assert found.e_value == 1.0
    assert found.tie_rate == found.invalid_rate == 0.0


def test_e_value_by_hand():
    # B(5/2, 1/2) / B(1/2, 1/2) * 4 = (3/8) * 4; B(3/2, 3/2) / B(1/2, 1/2) * 4 = (1/8) * 4
    assert winrate.e_value(0, 0) == pytest.approx(1)
    assert winrate.e_value(2, 0) == pytest.approx(1.5)
    assert winrate.e_value(1, 1) == pytest.approx(0.5)
    assert (winrate.e_value(8, 3) + winrate.e_value(7, 4)) / 2 == pytest.approx(
        winrate.e_value(7, 3)
    )  # a martingale under the null hypothesis
    assert winrate.e_value(5000, 0) < float("inf")


def test_e_value_under_optional_stopping_controls_false_positives():
    rng = np.random.default_rng(3)
    steps = rng.random((1000, 200)) < 0.5
    wins = steps.cumsum(axis=1)
    table = np.array([[winrate.e_value(w, n - w) if 0 <= w <= n else 0 for w in range(201)] for n in range(201)])
    alarms = table[np.arange(1, 201), wins].max(axis=1) >= winrate.EVIDENCE
    assert alarms.mean() <= 0.05


def test_length_control_removes_the_effect_of_length():
    # equal quality, longer answers of the treatment, and a judge with verbosity bias
    rng = np.random.default_rng(5)
    gaps = rng.normal(100, 100, 4000)
    wins = rng.random(4000) < 1 / (1 + np.exp(-np.tanh(gaps / gaps.std())))
    lengths = np.column_stack([1000 + gaps, np.full(4000, 1000.0)])
    found = compute_tally(make_trials(" ".join(np.where(wins, "ww", "ll")), lengths=lengths))
    assert found.score.low > 0.55
    assert found.length_controlled.low < 0.5 < found.length_controlled.high
    same = compute_tally(make_trials(" ".join(np.where(wins, "ww", "ll"))))
    assert same.length_controlled.reason == "no_length_difference"
    assert compute_tally(make_trials("ww ll ww")).length_controlled.reason == "few_prompts"


def test_kappa_by_hand():
    # agreement 0.7; chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5
    one = np.array([1] * 5 + [0] * 5)
    other = np.array([1, 1, 1, 1, 0, 1, 1, 0, 0, 0])
    assert winrate.agreement_and_kappa(one, other) == pytest.approx((0.7, 0.4))
    assert winrate.agreement_and_kappa(np.ones(4), np.ones(4)) == (1.0, None)
    assert winrate.agreement_and_kappa(np.zeros(0), np.zeros(0)) == (None, None)


def test_bradley_terry_of_three_methods():
    # a beats b 3:1, b beats c 3:1, a beats c 9:1: log-odds log 3 each, which is what the model can fit exactly
    def match(one, other, wins, losses):
        return make_trials(" ".join(["ww"] * wins + ["ll"] * losses), names=(one, other))

    matches = [match("b", "a", 10, 30), match("c", "b", 10, 30), match("c", "a", 4, 36)]
    found = fit_ranking(matches, ["a", "b", "c"])
    assert found["b", "a"].value == pytest.approx(0.25)
    assert found["c", "a"].value == pytest.approx(0.1)
    assert found["c", "a"].low < 0.1 < found["c", "a"].high < 0.3
    assert fit_ranking(matches[:1], ["a", "b"]) == {}


def reasons(matches, methods="abc"):
    return {estimate.reason for estimate in fit_ranking(matches, list(methods)).values()}


def test_a_ranking_without_a_finite_maximum_is_withheld():
    def match(one, other, word, count=40):
        return make_trials(" ".join([word] * count), names=(one, other))

    mixed = make_trials(" ".join(["ww"] * 20 + ["ll"] * 20), names=("c", "b"))
    assert reasons([match("b", "a", "ll"), mixed, match("c", "a", "ll")]) == {"separated"}  # a never lost
    assert reasons([match("b", "a", "uu"), mixed, match("c", "a", "uu")]) == {"separated"}  # a was never compared
    assert reasons([match("b", "a", "tt"), match("c", "b", "tt"), match("c", "a", "tt")]) == {"all_the_same"}
    assert reasons([match("b", "a", "ww", 9), match("c", "b", "ll", 9), match("c", "a", "tt", 9)]) == {"few_prompts"}
    assert reasons([match("b", "a", "uu"), match("c", "b", "uu"), match("c", "a", "uu")]) == {"few_prompts"}


def test_separation_by_length_has_no_length_control():
    lengths = [[100 + i, 100] for i in range(-20, 20)]
    assert (
        compute_tally(make_trials(" ".join(["ll"] * 20 + ["ww"] * 20), lengths=lengths)).length_controlled.reason
        == "separated"
    )
    assert compute_tally(
        make_trials(" ".join(["ll"] * 21 + ["ww"] * 18 + ["ll"]), lengths=lengths)
    ).length_controlled.value


def test_human_labels_correct_a_constant_bias_of_the_judge():
    # the judge scores 0.2 above the human labels on every prompt
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.1, 0.5, 2000)
    judged = truth + 0.2
    found = winrate.prediction_powered_share(judged[:50], truth[:50], judged[50:])
    assert found.low < truth.mean() < found.high
    assert found.high - found.low < 0.03  # 50 labels alone would give 0.065
    few = winrate.prediction_powered_share(judged[:5], truth[:5], judged[5:])
    assert (few.value, few.reason) == (None, "few_labels")


def test_an_uninformative_judge_leaves_the_human_mean():
    rng = np.random.default_rng(1)
    human, noise = rng.random(100), rng.random(1000)
    found = winrate.prediction_powered_share(1 - human, human, noise)  # anticorrelated
    assert found.value == pytest.approx(human.mean())
    same = winrate.prediction_powered_share(np.ones(20), np.ones(20), np.ones(50))
    assert (same.value, same.low, same.reason) == (1.0, None, "all_the_same")


def simulate_all(methods: MethodPair, judge_model: JudgeModel, count: int):
    rng = np.random.default_rng(11)
    return [simulate(methods, judge_model, rng) for _ in range(count)]


def coverage(estimates, truth: float) -> float:
    return float(np.mean([e.low <= truth <= e.high for e in estimates]))


def test_both_orders_remove_position_bias_and_one_order_does_not():
    methods, judge_model = MethodPair(gap=0.3), JudgeModel(position=0.4)
    trials = simulate_all(methods, judge_model, 600)
    truth = judge_model.true_share(methods.gap, methods.spread)
    assert truth == pytest.approx(stats.norm.cdf(0.3 / np.sqrt(1 + 2 * 0.49)))
    both = [winrate.clustered_share((combine_orders(t.results) + 1) / 2, t.prompts) for t in trials]
    assert coverage(both, truth) >= 0.94
    assert np.mean([e.value for e in both]) == pytest.approx(truth, abs=0.01)
    for order in (0, 1):
        single = [winrate.clustered_share((t.results[:, order] + 1) / 2, t.prompts) for t in trials]
        assert coverage(single, truth) < 0.05


def test_coverage_with_few_prompts():
    trials = simulate_all(MethodPair(prompts=12, seeds=1), JudgeModel(position=0.4), 400)
    assert coverage([compute_tally(t).score for t in trials], 0.5) >= 0.94
