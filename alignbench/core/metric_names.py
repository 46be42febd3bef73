"""The names of all tags and metrics that a run logs, and by which the analysis reads them."""

from typing import Final

STUDY: Final = "study"
METHOD: Final = "method"
MODEL: Final = "model"
SEED: Final = "seed"
PHASE: Final = "phase"
KEY: Final = "key"
RUN_DIR: Final = "run_dir"
TAGS: Final = (STUDY, METHOD, MODEL, SEED, PHASE, KEY, RUN_DIR)

REPORT: Final = "report"
"""The `phase` tag of the MLflow run that holds a study's report."""

# The update. Means and standard deviations of tokens are over all microbatches of a step.
TRAIN: Final = (
    "train/total_loss",
    "train/policy_loss",
    "train/value_loss",
    "train/kl_penalty",
    "train/kl_mean",
    "train/kl_std",
    "train/ratio_mean",
    "train/ratio_std",
    "train/advantages_mean",
    "train/advantages_std",
    "train/entropy",
    "train/clip_fraction",
    "train/value_clip_fraction",
    "train/value_mean",
    "train/explained_variance",
    "train/grad_norm",
    "train/learning_rate",
    "train/kl_coef",
    "train/score_mean",
    "train/score_std",
    "train/kl_to_old",
    "train/first_ratio_gap",
    "train/epochs_done",
    "train/skipped_updates",
)

# The scores of the rollouts of a step.
REWARDS: Final = tuple(f"rewards/{name}" for name in ("mean", "std", "max", "min", "median", "q25", "q75"))
REWARD_COMPONENT: Final = "rewards/component/"
SEPARATION: Final = "rewards/auc"
"""AUC: how often a correct answer scores above an incorrect one, where the score is not correctness itself."""

# The groups that are trained on; `kept_fraction` of the sampled rollouts; `pairs` for methods with preference pairs.
GROUPS: Final = (
    "group_stats/num_groups",
    "group_stats/avg_group_size",
    "group_stats/no_signal_fraction",
    "group_stats/kept_fraction",
    "group_stats/pairs",
    "group_stats/unpaired_fraction",
)

ROLLOUT: Final = (
    "rollout/response_length",
    "rollout/truncated_fraction",
    "rollout/kl_sequence",
    "rollout/kl_token",
    "rollout/sampler_gap",
    "rollout/effective_share",
)

# Budget spent so far in the RL stage of this run: the x axis of comparisons.
PROMPTS: Final = "budget/prompts"
COMPLETIONS: Final = "budget/completions"
TOKENS: Final = "budget/tokens"
OPTIMIZER_STEPS: Final = "budget/optimizer_steps"
FLOPS: Final = "budget/flops"
BUDGET: Final = (PROMPTS, COMPLETIONS, TOKENS, OPTIMIZER_STEPS, FLOPS)

# Measurements of the machine: the only metrics that differ between two runs of the same seed.
SECONDS: Final = "cost/seconds"
PEAK_MEMORY: Final = "cost/peak_memory_bytes"
TRACKING_SECONDS: Final = "cost/tracking_seconds"
EVALUATION_SECONDS: Final = "cost/evaluation_seconds"
COST: Final = (
    SECONDS,
    "cost/rollout_seconds",
    "cost/score_seconds",
    "cost/update_seconds",
    TRACKING_SECONDS,
    EVALUATION_SECONDS,
    PEAK_MEMORY,
)
COST_PREFIX: Final = "cost/"

# On validation prompts, every `eval.every` steps, and at step 0 (the initial policy) and the last step.
EVAL_ACCURACY: Final = "eval/accuracy"
EVAL_GOLD: Final = "eval/gold"
"""The true quality, where the dataset defines it; the reward is a proxy of it."""
EVAL: Final = (
    EVAL_ACCURACY,
    "eval/accuracy_flexible",
    EVAL_GOLD,
    "eval/avg_reward",
    "eval/avg_response_length",
    "eval/truncated_fraction",
    "eval/empty_fraction",
    "eval/repeated_fraction",
    "eval/kl",
    "eval/kl_token",
    "eval/perplexity",
)

# On test prompts, once after training; `start_` is the same for the initial policy of RL.
FINAL_ACCURACY: Final = "final/accuracy"
START_ACCURACY: Final = "final/start_accuracy"
FINAL_GOLD: Final = "final/gold"
START_GOLD: Final = "final/start_gold"
FINAL: Final = (
    FINAL_ACCURACY,
    "final/accuracy_flexible",
    FINAL_GOLD,
    "final/avg_reward",
    "final/avg_response_length",
    "final/truncated_fraction",
    "final/empty_fraction",
    "final/repeated_fraction",
    "final/kl",
    "final/kl_token",
    "final/perplexity",
    START_ACCURACY,
    "final/start_accuracy_flexible",
    START_GOLD,
    "final/start_avg_reward",
    "final/start_avg_response_length",
    "final/start_truncated_fraction",
    "final/start_empty_fraction",
    "final/start_repeated_fraction",
)
STRATUM: Final = "stratum/"
"""Infix after `eval/`, `final/` or `final/start_`, before the stratum's name and the metric."""
PASS_AT: Final = "final/pass_at_"
"""Prefix before k; logged with `eval.samples`."""

# `accuracy` and `lead` are of the training pairs of a step; the last seven are logged once, of held-out pairs.
REWARD_MODEL: Final = (
    "reward_model/loss",
    "reward_model/accuracy",
    "reward_model/lead",
    "reward_model/learning_rate",
    "reward_model/grad_norm",
    "reward_model/tokens",
    "reward_model/test_accuracy",
    "reward_model/test_loss",
    "reward_model/ece",
    "reward_model/temperature",
    "reward_model/validation_accuracy",
    "reward_model/score_mean",
    "reward_model/score_std",
)

SFT: Final = ("sft/loss", "sft/learning_rate", "sft/grad_norm", "sft/tokens", "sft/perplexity")

VERDICT: Final = ("<!-- verdict -->", "<!-- /verdict -->")
"""Markers around the study's verdict in a model card, between which the report inserts it."""

LOWER_IS_BETTER: Final = (
    "eval/kl",
    "final/kl",
    "eval/kl_token",
    "final/kl_token",
    "eval/perplexity",
    "final/perplexity",
    SECONDS,
    PEAK_MEMORY,
)
