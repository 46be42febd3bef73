"""Do the intervals, verdicts and scores of a report hold what they promise? Simulated where the truth is known.

python -m validation.simulations [docs/statistics_simulated.md]
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from analysis.statistics import welch_power
from validation.simulations import judged, prompts, seeds, verdicts

SEED, REPEATS, CONTESTS = 20_261_121, 20_000, 4_000
SIZES = (3, 5, 10)
TOLERANCE = 1.5
CHANCE = 0.4  # points: three standard errors of 5% in the table of the verdict, one in that of the judge
PROMPTS = 200

HEAD = """\
# Do the intervals hold what they promise?

Made by `python -m validation.simulations`; do not edit. Every number is the percent of {repeats:,} simulated studies
({contests:,} for the judge) in which an interval held the known truth, or a verdict was given; at 95% its standard
error is {error:.2f} points ({judge_error:.2f} for the judge). All random numbers come from seed {seed}. Intervals are
computed by their formulas for all studies at once, and for the first studies of each kind again by the functions that
print the report; the command stops if the two ever disagree.

The aim is 95% within {tolerance} points. **Bold** is outside, and below each table it says why. "Skewed" numbers are
chi-squared with 3 degrees of freedom (skewness 1.63).
"""

Cover = Callable[[seeds.Draw, int, int], seeds.Held]
Row = tuple[str, Cover, str]

SAFE = "errs on the safe side: Welch's degrees of freedom are fewer than 2n - 2, most so with 3 seeds"
LOPSIDED = "the mean of few skewed numbers is skewed, which so few cannot show; between equal spreads it cancels"
OVER_SEEDS: tuple[Row, ...] = (
    ("mean of a method, t", seeds.mean, LOPSIDED),
    ("difference, Welch t (decides)", seeds.difference, SAFE),
    ("difference, one method varying 4 times as much", partial(seeds.difference, unequal=4.0), LOPSIDED),
    ("Cohen's d and Hedges' g, no effect", partial(seeds.cohens_d, effect=0.0), ""),
    ("Cohen's d and Hedges' g, true effect 1", partial(seeds.cohens_d, effect=1.0),
     "the noncentral t is exact for normal numbers only: the spread of skewed ones varies more than it allows"),
    ("Cohen's d and Hedges' g, true effect 3", partial(seeds.cohens_d, effect=3.0),
     "the same, and more so for larger effects"),
    ("not printed: g with the limits of d times J, true effect 3", partial(seeds.scaled_by_j, effect=3.0),
     "d and g estimate the same effect, so scaling the limits moves them off it; that is why g has the interval of d"),
    ("Glass's delta, no effect (spreads 6 : 1)", partial(seeds.glass_delta, effect=0.0), LOPSIDED),
    ("Glass's delta, true effect 1 (spreads 6 : 1)", partial(seeds.glass_delta, effect=1.0), LOPSIDED),
    ("difference of pairs, t", seeds.paired_difference, ""),
    ("d_z, true effect 1", partial(seeds.paired_d_z, effect=1.0), "exact for normal numbers only"),
    ("d_av, true effect 1", partial(seeds.paired_d_av, effect=1.0),
     "an approximation (Algina and Keselman 2003) that needs more than 3 pairs"),
    ("d_av, true effect 3", partial(seeds.paired_d_av, effect=3.0), "the same approximation, here on the safe side"),
    ("ratio of costs, Welch t of logarithms", seeds.ratio, SAFE),
)  # fmt: skip


def cell(percent: float, wanted: float = 95.0, tolerance: float = TOLERANCE) -> str:
    """A number of the table, bold where it is too far from what was promised."""
    text = f"{percent:.1f}"
    return text if abs(percent - wanted) <= tolerance else f"**{text}**"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def with_reasons(head: Sequence[str], rows: Sequence[tuple[list[str], str]]) -> str:
    """A table, and under it why the bold numbers of a row are what they are."""
    why = dict.fromkeys((cells[0], reason) for cells, reason in rows if any("**" in text for text in cells[1:]))
    notes = "\n".join(f"- {name}: {reason}." for name, reason in why)
    return f"{table(head, [cells for cells, _ in rows])}\n\n{notes}" if notes else table(head, [c for c, _ in rows])


def over_seeds(repeats: int, rng: np.random.Generator) -> str:
    """Every interval over seeds, at each size, for normal and skewed numbers."""
    draws = (seeds.normal(rng), seeds.skewed(rng))
    rows = [([name, *(cell(cover(draw, repeats, n).percent) for draw in draws for n in SIZES)], why)
            for name, cover, why in OVER_SEEDS]  # fmt: skip
    trimmed = [cell(seeds.trimmed_mean(draw, repeats, 10).percent) for draw in draws]
    rows.append((["interquartile mean (from 10 seeds)", "", "", trimmed[0], "", "", trimmed[1]],
                 "an approximation that wants more numbers"))  # fmt: skip
    shares = [f"{seeds.wilson(rng, repeats, n, share).percent:.1f} ({share:.0%} of {n})"
              for n, share in ((100, 0.5), (100, 0.9), (300, 0.85))]  # fmt: skip
    head = ["interval", *(f"{kind} {n}+{n}" for kind in ("normal", "skewed") for n in SIZES)]
    return (
        "## Intervals over seeds\n\nFor normal numbers every printed interval is within the aim, but for d_av of large "
        "effects, which is wider than promised. Skewed numbers leave the difference that decides on the safe side and "
        f"take others below.\n\n{with_reasons(head, rows)}\n\n"
        f"Wilson's interval of a share of prompts: {', '.join(shares)}."
    )


def over_prompts(repeats: int, rng: np.random.Generator) -> str:
    """Which interval speaks for new seeds, for new prompts, for both."""
    rows = []
    for world in prompts.WORLDS:
        for n in SIZES:
            found = prompts.coverage(world, repeats, n, PROMPTS, rng)
            own = [cell(found[name]) if name in found else "" for name in ("these prompts", "these seeds")]
            rows.append(([world.name, f"{n}+{n}", *own, cell(found["both"]), f"{found['new seeds']:.1f}",
                          f"{found['new prompts']:.1f}"], SAFE))  # fmt: skip
    head = ["world", "seeds", "new seeds, these prompts", "new prompts, these seeds", "new seeds and prompts",
            "first interval for both", "second for both"]  # fmt: skip
    return (
        f"## Seeds and prompts\n\nTwo equal methods on {PROMPTS} prompts. The first three intervals are asked for what "
        "they speak of; the last two columns show how seldom the first two would hold if they were read as if they "
        f"spoke for new seeds and new prompts.\n\n{with_reasons(head, rows)}"
    )


def of_the_verdict(repeats: int, rng: np.random.Generator) -> str:
    """False alarms, false equivalence, and power against theory."""
    normal, skewed = seeds.normal(rng), seeds.skewed(rng)
    alarms: dict[str, Callable[[int], float]] = {
        "normal": lambda n: verdicts.false_alarms(normal, repeats, n),
        "skewed": lambda n: verdicts.false_alarms(skewed, repeats, n),
        "accuracy on 300 prompts": lambda n: verdicts.false_alarms(verdicts.accuracies(rng), repeats, n),
        "normal, four methods": lambda n: verdicts.false_alarms(normal, repeats, n, methods=4),
        "normal, one method varying 4 times as much": lambda n: verdicts.false_alarms(normal, repeats, n, unequal=4.0),
        "skewed, one method varying 4 times as much": lambda n: verdicts.false_alarms(skewed, repeats, n, unequal=4.0),
        "called equivalent, true difference = margin of 2 sd": lambda n: verdicts.false_equivalence(
            normal, repeats, n, 2.0
        ),
    }
    wrong = [([name, *(_at_most_5(share(n)) for n in SIZES)], LOPSIDED if "skewed" in name else "Welch's t is close to "
              "exact, not exact, where spreads differ that much") for name, share in alarms.items()]  # fmt: skip
    right = [[f"{margin:g} sd", *(f"{verdicts.true_equivalence(normal, repeats, n, margin):.1f}" for n in SIZES)]
             for margin in (1.0, 2.0, 4.0)]  # fmt: skip
    sizes = [f"{n}+{n}" for n in SIZES]
    return (
        "## The verdict\n\nPercent of studies in which it is wrong: equal methods are called better or worse (at most "
        "5 promised; the first four rows are a method against itself), or unequal ones are called equivalent.\n\n"
        f"{with_reasons(['equal methods', *sizes], wrong)}\n\n"
        f"Percent of studies of equal methods that are called equivalent:\n\n{table(['margin', *sizes], right)}\n\n"
        f"{_power(repeats, rng)}"
    )


def _at_most_5(percent: float) -> str:
    return f"{percent:.1f}" if percent <= 5.0 + CHANCE else f"**{percent:.1f}**"


def _power(repeats: int, rng: np.random.Generator) -> str:
    rows = []
    for n in SIZES:
        for effect in (0.8, 1.5, 3.07):
            found, student = verdicts.found(seeds.normal(rng), repeats, n, effect)
            welch = 100 * welch_power(effect, n, n)
            rows.append([f"{n}+{n}", f"{effect:g}", f"{found:.1f}", cell(welch, found, 1.0), f"{student:.1f}"])
    return (
        "How often a true effect is found, against theory. The smallest detectable d of a report is that of the "
        "t-test for equal spreads, as is the custom; Welch's, which decides because spreads need not be equal, finds "
        "less with 3 seeds, and the report says how much.\n\n"
        + table(["seeds", "true d", "found", "theory, Welch", "theory, equal spreads"], rows)
    )


def of_the_judge(contests: int, rng: np.random.Generator) -> str:
    """The scores of both orders and of one, against a judge whose biases are known."""
    rows = []
    for name, (contest, taste) in judged.CONTESTS.items():
        found = judged.judged(contest, taste, contests, rng)
        scores = [_score(found.strict), _score(found.mean_of_orders), _score(found.one_order, single=True)]
        equal = _score(found.equal_length) if found.equal_length else ""
        rows.append(([name, f"{found.truth:.1f}", *scores, equal], judged.WHY.get(name, "")))
    head = ["judge and methods", "fair judge", "both orders, strict", "both orders, mean", "first order only",
            "at equal length"]  # fmt: skip
    return (
        "## The judge's score\n\nMean score in percent and, behind it, how often its interval held the score that a "
        "fair judge would give in the long run (at least 94% wanted; bold where it is less beyond chance). Shown "
        "first, the treatment gains from a judge that likes what is first: scoring one order only fails whenever the "
        "judge has such a liking.\n\n"
        f"{with_reasons(head, rows)}"
    )


def _score(score: judged.Score, single: bool = False) -> str:
    """The mean and how often the interval held; a single order is there to be shown failing, so it is never bold."""
    held = f"{score.held:.1f}"
    return f"{score.mean:.1f}, {held if single or score.held >= 94.0 - CHANCE else f'**{held}**'}"


def parts(repeats: int, contests: int, seed: int) -> Iterator[str]:
    """The document, part by part; each part has random numbers of its own."""
    streams = [np.random.default_rng([seed, place]) for place in range(4)]
    errors = [100 * (0.95 * 0.05 / number) ** 0.5 for number in (repeats, contests)]
    yield HEAD.format(
        repeats=repeats, contests=contests, error=errors[0], judge_error=errors[1], seed=seed, tolerance=TOLERANCE
    )
    yield over_seeds(repeats, streams[0])
    yield over_prompts(repeats, streams[1])
    yield of_the_verdict(repeats, streams[2])
    yield of_the_judge(contests, streams[3])


def main(path: Path) -> None:
    """Write the document and show it."""
    text = "\n\n".join(part.strip() for part in parts(REPEATS, CONTESTS, SEED)) + "\n"
    path.write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/statistics_simulated.md"))
