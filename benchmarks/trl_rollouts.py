"""Rollouts alone: our sampler against transformers.generate, and both against the floor of the same decoding steps."""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

from alignbench.core.batches import Prompts, Rollouts
from alignbench.generation.sampler import Sampler
from alignbench.kernels.onednn import prepacked_weights
from alignbench.models.policy import CausalPolicy
from benchmarks.trl_setting import SETTINGS, Setting, load, load_plainly, stream

NEW_TOKENS, ENDING = 64, 0.05
PROMPTS = {"0.5M": 16, "30M": 8}


@dataclass(frozen=True)
class Case:
    """A model whose answers all have the same length, or each its own."""

    setting: Setting
    variable: bool

    @property
    def name(self) -> str:
        """As it stands in the table."""
        return f"{self.setting.name}, {'variable' if self.variable else 'fixed'} length"


CASES = [Case(setting, variable) for setting in SETTINGS.values() for variable in (False, True)]


def with_ending(policy: CausalPolicy, chance: float) -> CausalPolicy:
    """The policy with a bias for its end token, so that any other is as likely as it was and about `chance` end."""
    head = nn.Linear(policy.hidden_size, policy.vocabulary)
    head.weight, head.__class__ = policy.lm_head.weight, type(policy.lm_head)
    with torch.no_grad():
        head.bias.zero_()
        head.bias[policy.text.eos] = math.log(chance / (1 - chance) * policy.vocabulary) if chance else -1e4
    policy.inner.set_output_embeddings(head)
    return CausalPolicy(policy.model, policy.text)


def generate(policy: CausalPolicy, prompts: Prompts, group_size: int) -> int:
    """Sample with transformers; returns the tokens written, the end token of each answer included."""
    ids, lengths = (part.repeat_interleave(group_size, 0) for part in (prompts.tokens, prompts.lengths))
    seen = torch.arange(ids.shape[1])[None] >= (ids.shape[1] - lengths)[:, None]
    with torch.no_grad():
        out = policy.model.generate(
            ids,
            attention_mask=seen.long(),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=policy.text.eos,
            pad_token_id=policy.text.pad,
        )
    ended = (out[:, ids.shape[1] :] == policy.text.eos).cumsum(1).cumsum(1)  # 1 at the first end token, more after it
    return int((ended <= 1).sum())


@torch.no_grad()
def floor(policy: CausalPolicy, rollouts: Rollouts) -> None:
    """Nothing but the matrix products of the same steps, and those that read the keys and values so far.

    By the means of the sampler; a prompt is read by its whole group at once, and a row that has ended is not computed.
    """
    config = policy.inner.config
    width, heads = config.hidden_size, config.num_attention_heads
    of = width // heads
    layers = [[m for m in layer.modules() if isinstance(m, nn.Linear)] for layer in policy.decoder.layers]
    prompt = rollouts.prompts.shape[1]
    lengths, groups = rollouts.mask.sum(1), int(rollouts.group.max()) + 1
    own, shared = (
        [[torch.randn(n * heads, t, of) for _ in range(2)] for _ in layers]
        for n, t in ((len(rollouts), rollouts.mask.shape[1]), (groups, prompt))
    )
    inputs = {n: torch.randn(len(rollouts), n) for n in {m.in_features for layer in layers for m in layer} | {width}}
    for t in range(rollouts.mask.shape[1]):
        alive = int((lengths > t).sum())
        asked = torch.randn(alive * heads, 1, of)
        together = torch.randn(groups * heads, max(alive // groups, 1), of)
        for layer, written, known in zip(layers, own, shared, strict=True):
            for linear in layer:
                linear(inputs[linear.in_features][:alive])
            _attend(asked, *(kept[: alive * heads, : t + 1] for kept in written))
            _attend(together, *known)
        policy.lm_head(inputs[width][:alive])


def _attend(asked: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    return (asked @ keys.mT) @ values


def timed(work: Callable[[], int]) -> float:
    """Tokens in a second."""
    start = perf_counter()
    written = work()
    return written / (perf_counter() - start)


def compare(case: Case, folder: Path, rounds: int) -> list[dict[str, float]]:
    """Tokens in a second of each, one after the other, several times."""
    torch.set_num_threads(case.setting.threads)
    policy, plain = (
        with_ending(CausalPolicy(*loaded(folder)), ENDING if case.variable else 0.0) for loaded in (load, load_plainly)
    )
    prompts = next(iter(stream(case.setting, policy.text, PROMPTS[case.setting.name]).after(0)))
    sampler, group = Sampler(policy=policy, max_new_tokens=NEW_TOKENS, temperature=1.0), case.setting.group_size
    found = []
    for seed in range(rounds + 1):
        kept: list[Rollouts] = []

        def ours(seed: int = seed, kept: list[Rollouts] = kept) -> int:
            kept.append(sampler(prompts, group, seed))
            return int(kept[0].mask.sum())

        def at_least(kept: list[Rollouts] = kept) -> int:
            with prepacked_weights(policy.model):
                floor(policy, kept[0])
            return int(kept[0].mask.sum())

        found.append(
            {"ours": timed(ours), "generate": timed(lambda: generate(plain, prompts, group)), "floor": timed(at_least)}
        )
    return found[1:]


def main() -> None:
    """Print what was found as JSON; the folders of the models are given in the order of the settings."""
    folders = dict(zip(SETTINGS, map(Path, sys.argv[2:]), strict=True))
    rounds = int(sys.argv[1])
    found = {case.name: compare(case, folders[case.setting.name], rounds) for case in CASES}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
