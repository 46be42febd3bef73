"""The RL loop on steps of a fixed size: seconds of each part, and memory of the update."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from alignbench.core.batches import Experience, Rollouts, Row, Scores
from alignbench.core.protocols import Algorithm, Critic
from alignbench.data.prompt_stream import PromptStream
from alignbench.engine.checks import Invariants
from alignbench.engine.optimizer import AdamW
from alignbench.engine.rl_loop import RLLoop
from alignbench.engine.run_state import RunState
from alignbench.engine.score import microbatches, sibling_groups
from alignbench.engine.update import Update, Updated
from alignbench.kernels.attention_switch import attention_for
from alignbench.models.critic import make_critic
from alignbench.models.policy import CausalPolicy
from alignbench.models.text import Text
from alignbench.planning.memory import LiveTensorCounter, nbytes
from alignbench.stages.online import RL

PARTS = ("rollout", "score", "update")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
NO_TOKEN = -1


class EndlessText(Text):
    """A text side without stop tokens, so that every response has the maximum length."""

    @property
    def stops(self) -> tuple[int, ...]:
        """An id that no token has."""
        return (NO_TOKEN,)


class TokenSumReward:
    """A reward without meaning that differs between responses: the sum of the token ids modulo 7."""

    def __call__(self, rollouts: Rollouts) -> Scores:
        return Scores(total=((rollouts.responses * rollouts.mask).sum(1) % 7).float(), components={})

    def check(self, rows: Sequence[Row]) -> None:
        """Accept any rows."""

    def content_hash(self) -> str:
        """A constant: the reward has no settings."""
        return "sums"


@dataclass(frozen=True, kw_only=True)
class Load:
    """The size of a step."""

    prompts: int
    """Prompts in a step."""
    group_size: int = 8
    """Responses to each prompt, K."""
    prompt_tokens: int = 32
    response_tokens: int = 32
    microbatch: int = 32
    """Responses in a microbatch."""
    minibatches: int = 2

    @property
    def responses(self) -> int:
        """Responses in a step."""
        return self.prompts * self.group_size

    def texts(self) -> list[str]:
        """The prompts of four steps: random letters, one token each for a tokenizer without merges."""
        generator = torch.Generator().manual_seed(0)
        shape = (4 * self.prompts, self.prompt_tokens)
        rows = torch.randint(len(LETTERS), shape, generator=generator).tolist()
        return ["".join(LETTERS[i] for i in row) for row in rows]

    def stream(self, text: Text) -> PromptStream:
        """An endless stream of these prompts."""
        rows: list[Row] = [{"id": i, "prompt": prompt} for i, prompt in enumerate(self.texts())]
        return PromptStream(rows, text.encode_prompt, self.prompts, 0, text.pad, self.prompt_tokens)


@dataclass(frozen=True)
class UpdateMemory:
    """Memory of one update, in bytes."""

    weights: int
    optimizer: int
    """Gradient and two moments of the trained weights."""
    activations: int
    """Activations that the layers save for the backward pass of the largest microbatch, without logits."""
    peak: int
    """Peak of weights, optimizer and all tensors that the update allocates."""

    @property
    def minimum(self) -> int:
        """Weights, optimizer and activations."""
        return self.weights + self.optimizer + self.activations


@dataclass(frozen=True, kw_only=True)
class MeasuredUpdate(Update):
    """The update; while `measuring` is not empty it also counts live tensors, which is slow."""

    policy: CausalPolicy
    measuring: list[bool] = field(default_factory=list)
    results: list[UpdateMemory] = field(default_factory=list)

    def __call__(self, experience: Experience, **options: Any) -> Updated:
        if not self.measuring:
            return super().__call__(experience, **options)
        policy, moments = self.policy, [t for s in self.optimizer.adamw.state.values() for t in s.values()]
        weights = [*policy.model.parameters(), *(p for _, p in policy.critic_parameters())]
        batch = [part for part in vars(experience).values() if isinstance(part, Tensor)]
        activations = activation_bytes(policy, experience[self._largest(experience)])
        with LiveTensorCounter([*weights, *moments, *batch]) as alive:
            updated = super().__call__(experience, **options)
        trained = nbytes(self.optimizer.parameters)
        self.results.append(
            UpdateMemory(
                weights=nbytes(weights),
                optimizer=3 * trained,
                activations=activations,
                peak=nbytes(weights) + nbytes(moments) + alive.peak,
            )
        )
        return updated

    def _largest(self, experience: Experience) -> Tensor:
        """Row indices of the largest microbatch, which is at most a minibatch."""
        size = min(self.microbatch_size, len(experience) // self.minibatches)
        return next(microbatches(experience, size, sibling_groups(self.policy, experience), split_groups=True))


def activation_bytes(policy: CausalPolicy, batch: Experience) -> int:
    """Bytes that the layers save for the backward pass of these responses."""
    weights = {p.untyped_storage()._cdata for p in policy.model.parameters()}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            sizes[storage._cdata] = storage.nbytes()
        return tensor

    inputs = policy.packing.arrange(batch, policy.text.pad).to(policy.device).forward_kwargs(policy.dtype)
    with (
        torch.enable_grad(),
        attention_for(policy.decoder.config, inputs),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        out = policy.decoder(**inputs, use_cache=False)
    del out
    return sum(sizes.values())


class SynchronizedPolicy(CausalPolicy):
    """A policy that synchronizes its device after the reference pass, so that timing of the scores is exact."""

    @contextmanager
    def reference(self) -> Iterator[Any]:
        """Act as the reference, then synchronize."""
        with super().reference() as inner:
            yield inner
            synchronize(self.device)


def synchronize(device: torch.device | str) -> None:
    """Wait until all work queued on the device is done."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def build_policy(
    model: Any, text: Text, critic: Critic | None = None, kind: type[CausalPolicy] = CausalPolicy
) -> CausalPolicy:
    """A policy of class `kind` on this model, with a critic where settings are passed, and its frozen reference."""
    value = None if critic is None else make_critic(model, critic, seed=0)
    policy = kind(model, text, critic=value)
    policy.freeze_reference()
    return policy


@dataclass(frozen=True)
class StepTiming:
    """Timing of one step."""

    seconds: dict[str, float]
    """Seconds of each part; the update is all that is neither rollout nor score."""
    gap: float
    """Largest difference between sampler and update in the log-probability of a token, in nats."""

    @property
    def total(self) -> float:
        """Seconds of the step."""
        return sum(self.seconds.values())


@dataclass(frozen=True)
class TimedLoop:
    """The RL loop without logs and tracker."""

    policy: CausalPolicy
    engine: RLLoop
    stream: PromptStream
    state: RunState

    @property
    def scoring_passes(self) -> int:
        """Forward passes in the score part of a step: the reference, and the policy where it is rescored."""
        return 1 + self.engine.rescored

    def steps(self) -> Iterator[StepTiming]:
        """Run and time steps, without end."""
        reports = self.engine.run(self.stream, self.state)
        while True:
            start = perf_counter()
            metrics = next(reports).metrics
            synchronize(self.policy.device)
            total = perf_counter() - start
            rollout, score = metrics["cost/rollout_seconds"], metrics["cost/score_seconds"]
            seconds = {"rollout": rollout, "score": score, "update": total - rollout - score}
            yield StepTiming(seconds, metrics["rollout/sampler_gap"])

    def update_memory(self, steps: Iterator[StepTiming]) -> UpdateMemory:
        """Run the next of `steps` and return the memory of its update."""
        update = self.engine.update
        assert isinstance(update, MeasuredUpdate)
        update.measuring.append(True)
        next(steps)
        update.measuring.clear()
        return update.results.pop()


def build_timed_loop(policy: CausalPolicy, algorithm: Algorithm, load: Load, invariants: Invariants) -> TimedLoop:
    """The loop of a run at this load, at its second step: the first also compares sampler and update."""
    rl = RL(
        steps=1000,
        rollouts_per_step=load.responses,
        max_prompt_tokens=load.prompt_tokens,
        max_new_tokens=load.response_tokens,
        minibatches=load.minibatches,
        optimizer=AdamW(learning_rate=1e-9),
    )
    engine = rl.build_loop(policy, TokenSumReward(), algorithm, 0, load.microbatch, invariants)
    update = MeasuredUpdate(**{f.name: getattr(engine.update, f.name) for f in fields(Update)})
    state = replace(RunState.at_start(algorithm), step=1)
    return TimedLoop(policy, replace(engine, update=update), load.stream(policy.text), state)
