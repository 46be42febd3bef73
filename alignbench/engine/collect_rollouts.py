"""Prompts -> Drawn: the rollouts of a step, scored; drawn again while the algorithm wants other groups."""

from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter

import torch

from alignbench.core.batches import Prompts, Scored, joined
from alignbench.core.protocols import Algorithm, Policy, Sampler, Scorer
from alignbench.core.seeds import address
from alignbench.engine.score import score


@dataclass(frozen=True, kw_only=True)
class CollectedRollouts:
    """What a step drew, and what of it is trained on."""

    everything: Scored
    """All rollouts: they were paid for, and they show what the policy does."""
    kept: Scored
    """The groups that the algorithm wanted, no more than a step has; all of them where it wanted none."""
    prompts: int
    rollout_seconds: float
    score_seconds: float


@dataclass(frozen=True, kw_only=True)
class RolloutCollector:
    """How prompts become rollouts, and rollouts are scored."""

    policy: Policy
    sampler: Sampler
    scorer: Scorer
    algorithm: Algorithm
    microbatch_size: int
    tokens_per_microbatch: int | None
    seed: int
    rescored: bool = True
    """Whether the policy reads rollouts once more for their old log-probabilities; at step 0 it always does."""

    def __call__(self, stream: Iterator[Prompts], step: int, kl_coef: float) -> CollectedRollouts:
        """Draw once; with dynamic sampling again, until there are as many wanted groups as prompts in one draw."""
        selection, parts, kept, rollout, scoring = self.algorithm.dynamic_sampling, list[Scored](), 0, 0.0, 0.0
        prompts, wanted = 0, 0
        while not parts or (selection is not None and kept < wanted and len(parts) < selection.draws):
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
                rescored=self.reads_again(step),
            )
            rollout, scoring = rollout + sampled - start, scoring + perf_counter() - sampled
            prompts, wanted = prompts + len(batch), wanted or len(batch)
            parts.append(scored)
            if selection is not None:
                kept += len(scored.group[selection(scored)].unique())
        everything = parts[0] if len(parts) == 1 else joined(parts)
        chosen = everything if selection is None else first(everything, selection(everything), wanted)
        return CollectedRollouts(
            everything=everything, kept=chosen, prompts=prompts, rollout_seconds=rollout, score_seconds=scoring
        )

    def reads_again(self, step: int) -> bool:
        """Whether this step does; the first shows how far sampler and update are apart."""
        return self.rescored or step == 0


def first(drawn: Scored, keep: torch.Tensor, wanted: int) -> Scored:
    """The first `wanted` of the groups whose rollouts are to be kept; of all groups where that is none."""
    groups = (drawn.group[keep] if keep.any() else drawn.group).unique()[:wanted]
    return drawn[torch.isin(drawn.group, groups).nonzero()[:, 0]]
