"""Coverage of intervals, error rates of verdicts and bias of judge scores, in simulated studies with known truth.

python -m validation.simulations [docs/statistics_simulated.md]
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from analysis.statistics import welch_power
from validation.simulations import judge_scores, seeds, seeds_and_prompts, verdicts

SEED, REPEATS, COMPARISONS = 20_261_121, 20_000, 4_000
SIZES = (3, 5, 10)
TOLERANCE = 1.5
CHANCE = 0.4
"""Points: three standard errors of 5% in the table of the verdict, one in the table of the judge."""
PROMPTS = 200

HEAD = """\
# Simulated coverage and error rates

Made by `python -m validation.simulations`; do not edit. Each number is the percent of {repeats:,} simulated studies
({comparisons:,} for the judge) in which an interval covered the known truth, or a verdict was given; at 95% its
standard error is {error:.2f} points ({judge_error:.2f} for the judge). All random numbers come from seed {seed}.
Intervals are computed by vectorized formulas; the first studies of each kind are also computed by the functions of the
report, and the command stops if the two disagree.

The target is 95% within {tolerance} points. Numbers outside are **bold**, with the reason below the table. "Skewed"
numbers are chi-squared with 3 degrees of freedom (skewness 1.63).
"""

Simulation = Callable[[seeds.Sampler, int, int], seeds.Coverage]
Row = tuple[str, Simulation, str]

CONSERVATIVE = "conservative: Welch's degrees of freedom are fewer than 2n - 2, especially with 3 seeds"
SKEWED = "the mean of few skewed numbers is skewed; in a difference of methods with equal spreads this cancels"
OVER_SEEDS: tuple[Row, ...] = (
    ("mean of a method, t", seeds.mean, SKEWED),
    ("difference, Welch t (decides)", seeds.difference, CONSERVATIVE),
    ("difference, standard deviations 4 : 1", partial(seeds.difference, unequal=4.0), SKEWED),
    ("Cohen's d and Hedges' g, no effect", partial(seeds.cohens_d, effect=0.0), ""),
    ("Cohen's d and Hedges' g, true effect 1", partial(seeds.cohens_d, effect=1.0),
     "the noncentral t is exact for normal numbers only: the standard deviation of skewed numbers varies more"),
    ("Cohen's d and Hedges' g, true effect 3", partial(seeds.cohens_d, effect=3.0),
     "as for true effect 1, and stronger"),
    ("not used: g with the limits of d times J, true effect 3", partial(seeds.scaled_by_j, effect=3.0),
     "d and g estimate the same effect, so scaled limits are biased; "
     "the report gives g the interval of d"),
    ("Glass's delta, no effect, standard deviations 6 : 1", partial(seeds.glass_delta, effect=0.0), SKEWED),
    ("Glass's delta, true effect 1, standard deviations 6 : 1", partial(seeds.glass_delta, effect=1.0), SKEWED),
    ("paired difference, t", seeds.paired_difference, ""),
    ("d_z, true effect 1", partial(seeds.paired_d_z, effect=1.0), "exact for normal numbers only"),
    ("d_av, true effect 1", partial(seeds.paired_d_av, effect=1.0),
     "an approximation (Algina and Keselman 2003) that needs more than 3 seeds"),
    ("d_av, true effect 3", partial(seeds.paired_d_av, effect=3.0), "the same approximation, conservative here"),
    ("ratio of costs, Welch t of logarithms", seeds.ratio, CONSERVATIVE),
)  # fmt: skip


def cell(percent: float, target: float = 95.0, tolerance: float = TOLERANCE) -> str:
    """Format a number, bold where it differs from `target` by more than `tolerance` points."""
    text = f"{percent:.1f}"
    return text if abs(percent - target) <= tolerance else f"**{text}**"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def with_reasons(head: Sequence[str], rows: Sequence[tuple[list[str], str]]) -> str:
    """A table, followed by the reasons for the bold numbers of each row."""
    reasons = dict.fromkeys((cells[0], reason) for cells, reason in rows if any("**" in text for text in cells[1:]))
    notes = "\n".join(f"- {name}: {reason}." for name, reason in reasons)
    return f"{table(head, [cells for cells, _ in rows])}\n\n{notes}" if notes else table(head, [c for c, _ in rows])


def over_seeds(repeats: int, rng: np.random.Generator) -> str:
    """Coverage of the intervals over seeds, for each number of seeds, for normal and skewed numbers."""
    samplers = (seeds.normal(rng), seeds.skewed(rng))
    rows = [([name, *(cell(simulate(sampler, repeats, n).percent) for sampler in samplers for n in SIZES)], why)
            for name, simulate, why in OVER_SEEDS]  # fmt: skip
    trimmed = [cell(seeds.trimmed_mean(sampler, repeats, 10).percent) for sampler in samplers]
    rows.append((["interquartile mean (from 10 seeds)", "", "", trimmed[0], "", "", trimmed[1]],
                 "an approximation that needs more numbers"))  # fmt: skip
    shares = [f"{seeds.wilson(rng, repeats, n, share).percent:.1f} ({share:.0%} of {n})"
              for n, share in ((100, 0.5), (100, 0.9), (300, 0.85))]  # fmt: skip
    head = ["interval", *(f"{kind} {n}+{n}" for kind in ("normal", "skewed") for n in SIZES)]
    return (
        "## Intervals over seeds\n\nFor normal numbers every reported interval is within the target, except d_av for "
        "large effects, which is too wide. For skewed numbers the difference that decides is conservative and several "
        f"other intervals cover too little.\n\n{with_reasons(head, rows)}\n\n"
        f"Wilson's interval of a share of prompts: {', '.join(shares)}."
    )


def over_prompts(repeats: int, rng: np.random.Generator) -> str:
    """Coverage of the intervals for new seeds, for new prompts, and for both."""
    rows = []
    for case in seeds_and_prompts.CASES:
        for n in SIZES:
            coverage = seeds_and_prompts.coverage(case, repeats, n, PROMPTS, rng)
            own = [cell(coverage[name]) if name in coverage else "" for name in ("these prompts", "these seeds")]
            rows.append(([case.name, f"{n}+{n}", *own, cell(coverage["both"]), f"{coverage['new seeds']:.1f}",
                          f"{coverage['new prompts']:.1f}"], CONSERVATIVE))  # fmt: skip
    head = ["case", "seeds", "new seeds, these prompts", "new prompts, these seeds", "new seeds and prompts",
            "first interval as both", "second as both"]  # fmt: skip
    return (
        f"## Seeds and prompts\n\nTwo equal methods on {PROMPTS} prompts. Each of the first three intervals is "
        "compared with its own truth; the last two columns show the coverage of the first two if they were read as "
        f"intervals for new seeds and new prompts.\n\n{with_reasons(head, rows)}"
    )


def over_verdicts(repeats: int, rng: np.random.Generator) -> str:
    """Error rates of the verdict, and its power compared with theory."""
    normal, skewed = seeds.normal(rng), seeds.skewed(rng)
    alarms: dict[str, Callable[[int], float]] = {
        "normal": lambda n: verdicts.false_alarms(normal, repeats, n),
        "skewed": lambda n: verdicts.false_alarms(skewed, repeats, n),
        "accuracy on 300 prompts": lambda n: verdicts.false_alarms(verdicts.accuracies(rng), repeats, n),
        "normal, four methods": lambda n: verdicts.false_alarms(normal, repeats, n, methods=4),
        "normal, standard deviations 4 : 1": lambda n: verdicts.false_alarms(normal, repeats, n, unequal=4.0),
        "skewed, standard deviations 4 : 1": lambda n: verdicts.false_alarms(skewed, repeats, n, unequal=4.0),
        "called equivalent, true difference = margin of 2 sd": lambda n: verdicts.false_equivalence(
            normal, repeats, n, 2.0
        ),
    }
    errors = [([name, *(_at_most_5(share(n)) for n in SIZES)], SKEWED if "skewed" in name else "Welch's t is "
              "approximate where standard deviations differ that much") for name, share in alarms.items()]  # fmt: skip
    equivalent = [[f"{margin:g} sd", *(f"{verdicts.true_equivalence(normal, repeats, n, margin):.1f}" for n in SIZES)]
             for margin in (1.0, 2.0, 4.0)]  # fmt: skip
    sizes = [f"{n}+{n}" for n in SIZES]
    return (
        "## The verdict\n\nPercent of studies with a wrong verdict: better or worse for equal methods (the limit is "
        "5; in the first four rows a method is compared with itself), or equivalent for unequal methods.\n\n"
        f"{with_reasons(['equal methods', *sizes], errors)}\n\n"
        "Percent of studies of equal methods that are called equivalent:\n\n"
        f"{table(['margin', *sizes], equivalent)}\n\n"
        f"{_power(repeats, rng)}"
    )


def _at_most_5(percent: float) -> str:
    return f"{percent:.1f}" if percent <= 5.0 + CHANCE else f"**{percent:.1f}**"


def _power(repeats: int, rng: np.random.Generator) -> str:
    rows = []
    for n in SIZES:
        for effect in (0.8, 1.5, 3.07):
            detected, student = verdicts.detection_rate(seeds.normal(rng), repeats, n, effect)
            welch = 100 * welch_power(effect, n, n)
            rows.append([f"{n}+{n}", f"{effect:g}", f"{detected:.1f}", cell(welch, detected, 1.0), f"{student:.1f}"])
    return (
        "How often a true effect is detected, compared with theory. The smallest detectable d of a report is that "
        "of the t-test for equal standard deviations, as usual; Welch's test, which decides because standard "
        "deviations may differ, detects less with 3 seeds, and the report says how much.\n\n"
        + table(["seeds", "true d", "detected", "theory, Welch", "theory, equal standard deviations"], rows)
    )


def over_judges(comparisons: int, rng: np.random.Generator) -> str:
    """Scores from both orders and from one, for a judge with known biases."""
    rows = []
    for name, (methods, judge) in judge_scores.CASES.items():
        result = judge_scores.simulate_scores(methods, judge, comparisons, rng)
        scores = [_score(result.strict), _score(result.mean_of_orders), _score(result.one_order, single=True)]
        equal = _score(result.equal_length) if result.equal_length else ""
        rows.append(([name, f"{result.truth:.1f}", *scores, equal], judge_scores.REASONS.get(name, "")))
    head = ["judge and methods", "unbiased judge", "both orders, strict", "both orders, mean", "first order only",
            "at equal length"]  # fmt: skip
    return (
        "## The judge's score\n\nMean score in percent, and the coverage of its interval: how often it contains the "
        "expected score of an unbiased judge (target: at least 94%; bold where it is significantly less). With the "
        "first order only, the treatment is always shown first, so position bias shifts its score: the interval then "
        "rarely covers the truth.\n\n"
        f"{with_reasons(head, rows)}"
    )


def _score(score: judge_scores.Score, single: bool = False) -> str:
    """The mean and the coverage of the interval; a single order is expected to fail and is never bold."""
    coverage = f"{score.coverage:.1f}"
    return f"{score.mean:.1f}, {coverage if single or score.coverage >= 94.0 - CHANCE else f'**{coverage}**'}"


def sections(repeats: int, comparisons: int, seed: int) -> Iterator[str]:
    """The sections of the page; each has its own stream of random numbers."""
    streams = [np.random.default_rng([seed, i]) for i in range(4)]
    errors = [100 * (0.95 * 0.05 / number) ** 0.5 for number in (repeats, comparisons)]
    yield HEAD.format(
        repeats=repeats, comparisons=comparisons, error=errors[0], judge_error=errors[1], seed=seed, tolerance=TOLERANCE
    )
    yield over_seeds(repeats, streams[0])
    yield over_prompts(repeats, streams[1])
    yield over_verdicts(repeats, streams[2])
    yield over_judges(comparisons, streams[3])


def main(path: Path) -> None:
    """Write the page and print it."""
    text = "\n\n".join(part.strip() for part in sections(REPEATS, COMPARISONS, SEED)) + "\n"
    path.write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/statistics_simulated.md"))
