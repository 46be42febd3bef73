"""A bigram policy for tests: each token depends on the one before it; with sampler, scorer, prompts and RL loop."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.nn import Parameter

from alignbench.algorithms.bnpo import BNPO
from alignbench.algorithms.cispo import CISPO
from alignbench.algorithms.dynamic_sampling import DynamicSampling
from alignbench.algorithms.gdpo import GDPO
from alignbench.algorithms.grpo import GRPO
from alignbench.algorithms.gspo import GSPO
from alignbench.algorithms.overlong import Overlong
from alignbench.algorithms.pairing import Pairing
from alignbench.algorithms.pairwise import Pairwise
from alignbench.algorithms.ppo import PPO
from alignbench.algorithms.ppo_pairwise import PPOPairwise
from alignbench.algorithms.reinforce_pp import ReinforcePP
from alignbench.algorithms.rloo import RLOO
from alignbench.algorithms.sapo import SAPO
from alignbench.core.batches import Forward, Prompts, Rollouts, Scores, Sequences
from alignbench.core.seeds import derive
from alignbench.engine.checks import Invariants
from alignbench.engine.optimizer import AdamW, Optimizer
from alignbench.engine.rl_loop import RLLoop
from alignbench.engine.run_state import RunState
from alignbench.engine.update import Update

VOCABULARY, LIMIT, END, TARGET = 6, 5, 0, 5
PROMPTS = 8


class Bigram:
    """Tables of logits and values, row = the token before; its reference is the table it began with."""

    flops_per_token = 10
    critic_flops_per_token = 0
    shares_prompts = False

    def __init__(self, critic: bool = False, frozen: bool = False) -> None:
        draw = torch.Generator().manual_seed(0)
        self.table = Parameter(0.3 * torch.randn(VOCABULARY, VOCABULARY, generator=draw), requires_grad=not frozen)
        self.value = Parameter(torch.zeros(VOCABULARY)) if critic else None
        self.began = self.table.detach().clone()
        self.is_reference = False

    def logits(self) -> Tensor:
        return self.began if self.is_reference else self.table

    def __call__(self, batch: Sequences) -> Forward:
        before = torch.cat([batch.prompts[:, -1:], batch.responses[:, :-1]], dim=1)
        logp = self.logits().log_softmax(-1)[before]
        taken = logp.gather(-1, batch.responses[..., None])[..., 0]
        values = None if self.value is None else torch.where(batch.mask, self.value[before], 0.0)
        return Forward(
            logprobs=torch.where(batch.mask, taken, 0.0),
            entropy=torch.where(batch.mask, -(logp.exp() * logp).sum(-1), 0.0),
            values=values,
        )

    @contextmanager
    def reference(self) -> Iterator[None]:
        self.is_reference = True
        try:
            yield
        finally:
            self.is_reference = False

    def trainable(self) -> list[tuple[str, Parameter]]:
        named = {"table": self.table, "value": self.value}
        return [(name, p) for name, p in named.items() if p is not None and p.requires_grad]


class WrongReference(Bigram):
    """A policy whose reference differs from its initial weights."""

    def logits(self) -> Tensor:
        return self.began + 0.1 * torch.arange(VOCABULARY) if self.is_reference else self.table


class GradientDependent(Bigram):
    """A policy whose outputs differ when gradients are enabled, as with active dropout."""

    def logits(self) -> Tensor:
        return 0.5 * super().logits() if torch.is_grad_enabled() else super().logits()


class BigramSampler:
    """Samples from the policy's table until the end token or the limit."""

    def __init__(self, policy: Bigram, temperature: float = 1.0) -> None:
        self.policy, self.temperature = policy, temperature

    @torch.no_grad()
    def __call__(self, prompts: Prompts, group_size: int, seed: int) -> Rollouts:
        draw, n = derive(seed, "sample"), len(prompts) * group_size
        start = prompts.tokens.repeat_interleave(group_size, 0)
        responses, logprobs, mask = torch.zeros(n, LIMIT, dtype=torch.long), torch.zeros(n, LIMIT), []
        token, alive = start[:, -1], torch.ones(n, dtype=torch.bool)
        for t in range(LIMIT):
            logp = (self.policy.table[token] / self.temperature).log_softmax(-1)
            token = torch.multinomial(logp.exp(), 1, generator=draw)[:, 0]
            responses[:, t] = torch.where(alive, token, 0)
            logprobs[:, t] = torch.where(alive, logp.gather(1, token[:, None])[:, 0], 0.0)
            mask.append(alive)
            alive = alive & (token != END)
        return Rollouts(
            prompts=start,
            prompt_lengths=prompts.lengths.repeat_interleave(group_size),
            responses=responses,
            mask=torch.stack(mask, 1),
            group=torch.arange(n) // group_size,
            logprobs=logprobs,
            truncated=alive,
            texts=tuple(" ".join(map(str, r)) for r in responses.tolist()),
            rows=tuple(row for row in prompts.rows for _ in range(group_size)),
        )


class TargetCounter:
    """Scores a rollout by the number of occurrences of the target token."""

    def __call__(self, rollouts: Rollouts) -> Scores:
        hits = ((rollouts.responses == TARGET) & rollouts.mask).float().sum(1)
        return Scores(total=hits, components={"hits": hits, "tokens": rollouts.mask.float().sum(1)})

    def check(self, rows) -> None:
        """Every row can be scored."""

    def content_hash(self) -> str:
        return "wanted"


class ConstantScore(TargetCounter):
    """The same score for every rollout."""

    def __init__(self, score: float) -> None:
        self.score = score

    def __call__(self, rollouts: Rollouts) -> Scores:
        return Scores(total=torch.full((len(rollouts),), self.score))


class Stream:
    """Eight prompts a step, their last tokens in turn."""

    def after(self, prompts_seen: int) -> Iterator[Prompts]:
        while True:
            last = [1 + (prompts_seen + i) % (VOCABULARY - 1) for i in range(PROMPTS)]
            yield Prompts(
                tokens=torch.tensor([[2, token] for token in last]),
                lengths=torch.full((PROMPTS,), 2),
                rows=tuple({"id": prompts_seen + i, "prompt": "?"} for i in range(PROMPTS)),
            )
            prompts_seen += PROMPTS


METHODS = {
    "PPO": lambda **o: PPO(**{"group_size": 4, "value_clip": None, **o}),
    "GRPO": lambda **o: GRPO(**{"group_size": 4, **o}),
    "RLOO": lambda **o: RLOO(**{"group_size": 4, **o}),
}


FAMILY = {
    **{
        name: partial(make, **settings)
        for name, make, settings in (
            ("ReinforcePP", ReinforcePP, {}),
            ("ReinforcePP, baseline", ReinforcePP, {"group_baseline": True, "group_size": 4}),
            ("LitePPO", GRPO, {"std_over": "batch", "group_size": 4}),
            (
                "DAPO",
                GRPO,
                {
                    "clip_high": 0.28,
                    "group_size": 4,
                    "dynamic_sampling": DynamicSampling(draws=3),
                    "overlong": Overlong(limit=LIMIT, buffer=0.4),
                },
            ),
            ("GSPO", GSPO, {"group_size": 4, "clip_low": 0.1, "clip_high": 0.1}),
            ("CISPO", CISPO, {"group_size": 4}),
            ("SAPO", SAPO, {"group_size": 4}),
            ("BNPO", BNPO, {"group_size": 4, "high": 5.0}),
            ("GDPO", GDPO, {"group_size": 4, "part_weights": {"hits": 1.0}}),
            ("PPOPairwise", PPOPairwise, {"group_size": 4, "value_clip": None}),
            *(
                (
                    f"{selector} {link}",
                    Pairwise,
                    {"group_size": 4, "pairs": Pairing(selector=selector, link=link, beta=beta)},
                )
                for selector, link, beta in (
                    ("consecutive", "linear", None),
                    ("random", "linear", None),
                    ("winner_vs_all", "logistic", 0.5),
                    ("winner_vs_incorrect", "squared", 0.1),
                )
            ),
        )
    },
    **METHODS,
}


def engine(
    algorithm,
    *,
    seed=0,
    policy=None,
    scorer=None,
    rate=0.05,
    epochs=2,
    minibatches=2,
    microbatch_size=16,
    invariants=None,
    temperature=1.0,
    steps=100,
    missing_eos_penalty=0.0,
    importance_cap=None,
    rescored=True,
    **adamw,
) -> RLLoop:
    """An RL loop with a bigram policy."""
    policy = policy or Bigram(critic=algorithm.critic is not None)
    groups = [([policy.table] if policy.table.requires_grad else [], rate)]
    if algorithm.critic is not None:
        groups.append(([policy.value], rate))
    # A larger eps than usual: Adam's first step is the sign of the gradient, even of a pure floating-point error.
    settings = AdamW(**{"learning_rate": rate, "warmup_steps": 0, "eps": 1e-5, **adamw})
    update = Update(
        policy=policy,
        optimizer=Optimizer(groups, settings, 100),
        algorithm=algorithm,
        epochs=epochs,
        minibatches=minibatches,
        microbatch_size=microbatch_size,
        invariants=invariants or Invariants(),
        importance_cap=importance_cap,
    )
    return RLLoop(
        policy=policy,
        sampler=BigramSampler(policy, temperature),
        scorer=scorer or TargetCounter(),
        algorithm=algorithm,
        update=update,
        seed=seed,
        steps=steps,
        missing_eos_penalty=missing_eos_penalty,
        rescored=rescored,
    )


def start(algorithm) -> RunState:
    """The initial state of a run."""
    return RunState.at_start(algorithm)


def weights(policy: Bigram) -> list[Tensor]:
    """A copy of the trained parameters."""
    return [p.detach().clone() for _, p in policy.trainable()]
