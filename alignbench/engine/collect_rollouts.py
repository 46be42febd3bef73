"""Samples and scores the rollouts of a step; with dynamic sampling until enough groups are selected."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter

import torch

from alignbench.core.batches import Prompts, Scored, concatenate
from alignbench.core.protocols import Algorithm, Policy, Sampler, Scorer
from alignbench.core.seeds import address
from alignbench.engine import step_metrics
from alignbench.engine.score import score
from alignbench.engine.token_metrics import Metrics


@dataclass(frozen=True, kw_only=True)
class CollectedRollouts:
    """The rollouts of a step, and those that it trains on."""

    sampled: Scored
    """All rollouts that were sampled: they count in the budget and in the rollout metrics."""
    selected: Scored
    """The groups that the algorithm selected, at most as many as a step has; all of them if it selects none."""
    prompts: int
    """Number of prompts sampled, those of groups that were not selected included."""
    rescored: bool
    """Whether old log-probabilities are from a forward pass of the policy, and not from the sampler."""
    rollout_seconds: float
    score_seconds: float

    @cached_property
    def metrics(self) -> Metrics:
        """Length, KL and sampler gap of all rollouts, which the checks read too."""
        return step_metrics.rollouts(self.sampled)


@dataclass(frozen=True, kw_only=True)
class RolloutCollector:
    """Turns a stream of prompts into scored rollouts."""

    policy: Policy
    sampler: Sampler
    scorer: Scorer
    algorithm: Algorithm
    microbatch_size: int
    tokens_per_microbatch: int | None
    seed: int
    rescored: bool = True
    """Whether the policy computes the old log-probabilities itself at every step; at step 0 it always does."""

    def __call__(self, stream: Iterator[Prompts], step: int, kl_coef: float) -> CollectedRollouts:
        """Sample one batch of prompts; with dynamic sampling more, until as many groups are selected as it has."""
        selection, parts, rollout_seconds, score_seconds = self.algorithm.dynamic_sampling, list[Scored](), 0.0, 0.0
        prompts, needed, selected = 0, 0, 0
        rescored = self.rescored or step == 0  # Step 0 always shows how far sampler and policy are apart.
        while not parts or (selection is not None and selected < needed and len(parts) < selection.draws):
            batch = next(stream)
            names = ("rollout", step) if not parts else ("rollout", step, len(parts))
            start = perf_counter()
            rollouts = self.sampler(batch, self.algorithm.group_size, address(self.seed, *names))
            sampled = perf_counter()
            scored = score(
                rollouts,
                self.scorer,
                self.policy,
                kl_coef,
                self.microbatch_size,
                tokens=self.tokens_per_microbatch,
                rescored=rescored,
            )
            rollout_seconds += sampled - start
            score_seconds += perf_counter() - sampled
            prompts, needed = prompts + len(batch), needed or len(batch)
            parts.append(scored)
            if selection is not None:
                selected += len(scored.group[selection(scored)].unique())
        everything = parts[0] if len(parts) == 1 else concatenate(parts)
        return CollectedRollouts(
            sampled=everything,
            selected=everything if selection is None else first_groups(everything, selection(everything), needed),
            prompts=prompts,
            rescored=rescored,
            rollout_seconds=rollout_seconds,
            score_seconds=score_seconds,
        )


def first_groups(rollouts: Scored, selected: torch.Tensor, count: int) -> Scored:
    """The first `count` groups among the `selected` [n] rollouts, or among all rollouts if none is selected."""
    groups = (rollouts.group[selected] if selected.any() else rollouts.group).unique()[:count]
    return rollouts[torch.isin(rollouts.group, groups).nonzero()[:, 0]]
