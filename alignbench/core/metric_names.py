"""The names of all tags and metrics that a run writes down; the analysis reads them by these names."""

from typing import Final

STUDY: Final = "study"
METHOD: Final = "method"
MODEL: Final = "model"
SEED: Final = "seed"
PHASE: Final = "phase"
KEY: Final = "key"
RUN_DIR: Final = "run_dir"
TAGS: Final = (STUDY, METHOD, MODEL, SEED, PHASE, KEY, RUN_DIR)

PHASES: Final = ("sft", "reward_model", "rl", "evaluate")
REPORT: Final = "report"
"""The phase of the run that carries a study's report: no training, but known by the same tags."""

# What the update did. Token means and deviations are over the whole batch of a step.
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

# What the scorer said of the rollouts of a step.
REWARDS: Final = tuple(f"rewards/{name}" for name in ("mean", "std", "max", "min", "median", "q25", "q75"))
REWARD_COMPONENT: Final = "rewards/component/"
SEPARATION: Final = "rewards/auc"
"""How often a right answer scored above a wrong one, where the score is more than correctness."""

# Of the groups that were trained on; `kept_fraction` of those drawn, `pairs` where a method compares rollouts in pairs.
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

# Budget spent so far in the RL phase of this run: the matched axis of a comparison.
PROMPTS: Final = "budget/prompts"
COMPLETIONS: Final = "budget/completions"
TOKENS: Final = "budget/tokens"
OPTIMIZER_STEPS: Final = "budget/optimizer_steps"
FLOPS: Final = "budget/flops"
BUDGET: Final = (PROMPTS, COMPLETIONS, TOKENS, OPTIMIZER_STEPS, FLOPS)

# Measurements of the machine: the only numbers that differ between two runs of the same seed.
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

# Measured on validation prompts every `eval.every` steps, step 0 (the SFT start) and the last one included.
EVAL_ACCURACY: Final = "eval/accuracy"
EVAL_GOLD: Final = "eval/gold"
"""The true quality, where the data knows it; the reward is a proxy of it."""
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

# Measured once on test prompts when training ended; `start_` is the same for the policy RL began with.
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
"""After `eval/`, `final/` or `final/start_`: followed by the stratum's name and the mark."""
PASS_AT: Final = "final/pass_at_"
"""Followed by k, when `eval.samples` asks for it."""

# `accuracy` and `lead` are of the training pairs of a step; the rest is told once, of validation and test pairs.
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
"""What stands around the study's verdict in a model card, so that the report can say it there."""

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
