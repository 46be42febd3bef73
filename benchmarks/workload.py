"""The engine on steps of a known size, timed part by part; what its update holds."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from alignbench.core.batches import Experience
from alignbench.data.prompt_stream import PromptStream
from alignbench.engine.checks import Invariants
from alignbench.engine.optimizer import AdamW
from alignbench.engine.rl_loop import RLLoop
from alignbench.engine.run_state import RunState
from alignbench.engine.score import microbatches, sibling_groups
from alignbench.engine.update import Update, Updated
from alignbench.kernels.attention_switch import attention_for
from alignbench.models.policy import CausalPolicy
from alignbench.models.text import Text
from alignbench.planning.memory import LiveTensorCounter, nbytes
from alignbench.stages.online import RL
from benchmarks.memory import Sums

PARTS = ("rollout", "score", "update")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
NEVER = -1


class Endless(Text):
    """A text side in which no token ends an answer, so that all are as long as they may be."""

    @property
    def stops(self) -> tuple[int, ...]:
        """A token that there is not."""
        return (NEVER,)


@dataclass(frozen=True, kw_only=True)
class Load:
    """What each step has to do."""

    groups: int
    """Prompts in a step."""
    group: int = 8
    """Answers to each, K."""
    prompt: int = 32
    """Tokens of a prompt."""
    answer: int = 32
    """Tokens of an answer."""
    microbatch: int = 32
    minibatches: int = 2

    @property
    def answers(self) -> int:
        """Of one step."""
        return self.groups * self.group

    def texts(self) -> list[str]:
        """A few steps of prompts: letters, each of which a tokenizer without merges makes a token of."""
        draw = torch.Generator().manual_seed(0)
        drawn = torch.randint(len(LETTERS), (4 * self.groups, self.prompt), generator=draw).tolist()
        return ["".join(LETTERS[i] for i in row) for row in drawn]

    def stream(self, text: Text) -> PromptStream:
        """These prompts without end."""
        rows = [{"id": i, "prompt": prompt} for i, prompt in enumerate(self.texts())]
        return PromptStream(rows, text.encode_prompt, self.groups, 0, text.pad, self.prompt)


@dataclass(frozen=True)
class Held:
    """Bytes of one update."""

    weights: int
    optimizer: int
    """Two moments of what is trained, and its gradient."""
    activations: int
    """What the layers keep of the largest microbatch until its backward pass; no logits."""
    peak: int
    """The most that weights, optimizer and all the update makes took together."""

    @property
    def least(self) -> int:
        """What cannot be done without."""
        return self.weights + self.optimizer + self.activations


@dataclass(frozen=True, kw_only=True)
class Watched(Update):
    """The update as it is; when told to look, its tensors are counted, which takes time."""

    look: list[bool] = field(default_factory=list)
    found: list[Held] = field(default_factory=list)

    def __call__(self, experience: Experience, **given: Any) -> Updated:
        if not self.look:
            return super().__call__(experience, **given)
        policy, moments = self.policy, [t for s in self.optimizer.adamw.state.values() for t in s.values()]
        known = [*policy.model.parameters(), *(p for _, p in policy.critic_parameters())]
        batch = [part for part in vars(experience).values() if isinstance(part, Tensor)]
        activations = kept(policy, experience[self._largest(experience)])
        with LiveTensorCounter([*known, *moments, *batch]) as alive:
            updated = super().__call__(experience, **given)
        learned = nbytes(self.optimizer.parameters)
        self.found.append(
            Held(
                weights=nbytes(known),
                optimizer=3 * learned,
                activations=activations,
                peak=nbytes(known) + nbytes(moments) + alive.peak,
            )
        )
        return updated

    def _largest(self, experience: Experience) -> Tensor:
        """The rows of the largest microbatch, which is no larger than a minibatch."""
        size = min(self.microbatch_size, len(experience) // self.minibatches)
        return next(microbatches(experience, size, sibling_groups(self.policy, experience), split_groups=True))


def kept(policy: CausalPolicy, part: Experience) -> int:
    """Bytes that the layers keep for the backward pass of these answers."""
    weights = {p.untyped_storage()._cdata for p in policy.model.parameters()}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            sizes[storage._cdata] = storage.nbytes()
        return tensor

    inputs = policy.packing.arrange(part, policy.text.pad).to(policy.device).forward_kwargs(policy.dtype)
    with (
        torch.enable_grad(),
        attention_for(policy.decoder.config, inputs),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        out = policy.decoder(**inputs, use_cache=False)
    del out
    return sum(sizes.values())


class Clocked(CausalPolicy):
    """A policy that waits for its device when it has been the reference, so that scoring ends when it has ended."""

    @contextmanager
    def reference(self) -> Iterator[Any]:
        """As it is, and then the wait."""
        with super().reference() as inner:
            yield inner
            wait(self.device)


def wait(device: torch.device | str) -> None:
    """Until the device has done all it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Step:
    """What a step took."""

    seconds: dict[str, float]
    """Of each part; what is neither rollout nor score is update."""
    gap: float
    """The most that sampler and update differed on a token's log-probability."""

    @property
    def whole(self) -> float:
        """Seconds of all of it."""
        return sum(self.seconds.values())


@dataclass(frozen=True)
class Loop:
    """A run of the engine, without journal and tracker."""

    engine: RLLoop
    stream: PromptStream
    state: RunState

    @property
    def reads(self) -> int:
        """Forward passes of a step that score: the reference's, and the policy's own where it is read again."""
        return 1 + self.engine.rescored

    def steps(self) -> Iterator[Step]:
        """One after the other, without end."""
        reports, device = self.engine.run(self.stream, self.state), self.engine.policy.device
        while True:
            start = perf_counter()
            shown = next(reports).metrics
            wait(device)
            whole = perf_counter() - start
            rollout, score = shown["cost/rollout_seconds"], shown["cost/score_seconds"]
            yield Step(
                {"rollout": rollout, "score": score, "update": whole - rollout - score}, shown["rollout/sampler_gap"]
            )

    def held(self, steps: Iterator[Step]) -> Held:
        """The bytes of the next step's update."""
        update = self.engine.update
        assert isinstance(update, Watched)
        update.look.append(True)
        next(steps)
        update.look.clear()
        return update.found.pop()


def loop(policy: CausalPolicy, algorithm: Any, load: Load, invariants: Invariants) -> Loop:
    """A run of that load which begins after its first step, the one that also checks the sampler."""
    rl = RL(
        steps=1000,
        rollouts_per_step=load.answers,
        max_prompt_tokens=load.prompt,
        max_new_tokens=load.answer,
        minibatches=load.minibatches,
        optimizer=AdamW(learning_rate=1e-9),
    )
    engine = rl.build_loop(policy, Sums(), algorithm, 0, load.microbatch, invariants)
    watched = Watched(**{f.name: getattr(engine.update, f.name) for f in fields(Update)})
    state = replace(RunState.at_start(algorithm), step=1)
    return Loop(replace(engine, update=watched), load.stream(policy.text), state)
