"""Statistics over seeds and prompts: pure functions of numbers; what cannot be computed is None and says why."""

from .crossed import Crossed, VarianceBudget, clustered, crossed
from .effect import cohens_d, glass_delta, hedges_g, pooled_sd, small_sample_factor
from .estimate import (
    Estimate,
    Numbers,
    interquartile_mean,
    is_constant,
    mean,
    mean_interval,
    missing_reason,
    undefined_reason,
)
from .groups import (
    Permutation,
    Welch,
    holm,
    is_equivalent,
    lies_within,
    permutation,
    probability_of_improvement,
    ratio,
    smallest_permutation_p,
    welch,
)
from .paired import Paired, paired, sign_flip, smallest_sign_flip_p
from .power import (
    minimum_detectable_d,
    minimum_detectable_d_z,
    paired_power,
    pairs_needed,
    power,
    seeds_needed,
)
from .shares import McNemar, mcnemar, wilson

__all__ = [
    "Crossed",
    "Estimate",
    "McNemar",
    "Numbers",
    "Paired",
    "Permutation",
    "VarianceBudget",
    "Welch",
    "clustered",
    "cohens_d",
    "crossed",
    "glass_delta",
    "hedges_g",
    "holm",
    "interquartile_mean",
    "is_constant",
    "is_equivalent",
    "lies_within",
    "mcnemar",
    "mean",
    "mean_interval",
    "minimum_detectable_d",
    "minimum_detectable_d_z",
    "missing_reason",
    "paired",
    "paired_power",
    "pairs_needed",
    "permutation",
    "pooled_sd",
    "power",
    "probability_of_improvement",
    "ratio",
    "seeds_needed",
    "sign_flip",
    "small_sample_factor",
    "smallest_permutation_p",
    "smallest_sign_flip_p",
    "undefined_reason",
    "welch",
    "wilson",
]
